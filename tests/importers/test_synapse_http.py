"""A fake Synapse that answers as a real one did, from the rows of a real one's database."""

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mediarepo.importers.errors import BytesVanishedError, SourceError, SourceUnavailableError
from mediarepo.importers.source import Source
from mediarepo.importers.synapse.http_client import HomeserverGetter
from mediarepo.importers.synapse.http_source import HostedSynapseSource
from mediarepo.model.import_source import DownloadBytes, MediaKind, ResolutionState, SourceItem
from tests.importers.test_synapse_sqlite import source_of

PAGE = 2
TOKEN = "of-an-admin"


class FakeSynapse:
    def __init__(self, store: Path) -> None:
        connection = sqlite3.connect(store / "homeserver.db")
        connection.row_factory = sqlite3.Row
        self.rows = [dict(row) for row in connection.execute("SELECT * FROM local_media_repository")]
        connection.close()
        self.store = store / "media_store"
        self.knows_single_media = True
        self.down = False
        self.changes: list[dict[str, Any]] = []
        self.app = web.Application(middlewares=[self.guard])
        self.app.router.add_get("/_synapse/admin/v2/users", self.users)
        self.app.router.add_get("/_synapse/admin/v1/users/{user}/media", self.media)
        self.app.router.add_get("/_synapse/admin/v1/statistics/users/media", self.statistics)
        self.app.router.add_get("/_synapse/admin/v1/media/quarantine_changes", self.quarantine_changes)
        self.app.router.add_get("/_synapse/admin/v1/media/{server}/{id}", self.single)
        self.app.router.add_get("/_matrix/client/v1/media/download/{server}/{id}", self.download)

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.down:
            return web.Response(status=502, text="bad gateway")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"errcode": "M_FORBIDDEN", "error": "You are not a server admin"}, status=403)
        answer: web.StreamResponse = await handler(request)
        return answer

    def _page(self, request: web.Request, name: str, entries: list[dict[str, Any]]) -> web.Response:
        start = int(request.query["from"])
        more = {"next_token": start + PAGE} if start + PAGE < len(entries) else {}
        return web.json_response({name: entries[start : start + PAGE], "total": len(entries), **more})

    async def users(self, request: web.Request) -> web.Response:
        assert request.query["deactivated"] == "true"
        names = sorted({row["user_id"] for row in self.rows})
        return self._page(request, "users", [{"name": name} for name in names])

    async def media(self, request: web.Request) -> web.Response:
        rows = [row for row in self.rows if row["user_id"] == request.match_info["user"]]
        hidden = {"url_cache", "user_id"}
        entries = [{name: value for name, value in row.items() if name not in hidden} for row in rows]
        return self._page(request, "media", sorted(entries, key=lambda entry: str(entry[request.query["order_by"]])))

    async def statistics(self, request: web.Request) -> web.Response:
        lengths = [row["media_length"] or 0 for row in self.rows]
        return self._page(request, "users", [{"media_count": 1, "media_length": length} for length in lengths])

    async def quarantine_changes(self, request: web.Request) -> web.Response:
        start = int(request.query["from"])
        page = self.changes[start : start + PAGE]
        return web.json_response({"changes": page, "next_batch": start + len(page)})

    async def single(self, request: web.Request) -> web.Response:
        if not self.knows_single_media:
            return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}, status=404)
        for row in self.rows:
            if (request.match_info["server"], request.match_info["id"]) == ("fix.test", row["media_id"]):
                return web.json_response({"media_info": {**row, "media_origin": None, "filesystem_id": None}})
        return web.json_response({"errcode": "M_NOT_FOUND", "error": "Unknown media"}, status=404)

    async def download(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        row = next(row for row in self.rows if row["media_id"] == name)
        if row["quarantined_by"] and request.query.get("admin_unsafely_bypass_quarantine") != "true":
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "Not found"}, status=404)
        path = self.store / "local_content" / name[:2] / name[2:4] / name[4:]
        if not path.exists():
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "Not found"}, status=404)
        return web.Response(body=path.read_bytes())


@pytest.fixture
async def synapse(sqlite_store: Path) -> FakeSynapse:
    return FakeSynapse(sqlite_store)


@asynccontextmanager
async def running(synapse: FakeSynapse, token: str = TOKEN) -> AsyncIterator[HostedSynapseSource]:
    runner = web.AppRunner(synapse.app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with HostedSynapseSource(HomeserverGetter(url, token), "fix.test") as source:
            yield source
    finally:
        await runner.cleanup()


async def test_rows_are_those_of_the_database(synapse: FakeSynapse, sqlite_store: Path) -> None:
    async with running(synapse) as source, source_of(sqlite_store) as direct:
        general: Source = source
        media = [one async for one in general.media()]

        assert media == [one async for one in direct.media()]
        assert [one async for one in source.media(media[6].key)] == media[7:]
        assert {one.kind for one in media} == {MediaKind.LOCAL, MediaKind.URL_CACHE}


@pytest.mark.parametrize("knows_single_media", [True, False])
async def test_single_rows_are_found_by_new_and_old_synapses(
    synapse: FakeSynapse, sqlite_store: Path, knows_single_media: bool
) -> None:
    synapse.knows_single_media = knows_single_media
    async with running(synapse) as source, source_of(sqlite_store) as direct:
        async for media in direct.media():
            assert await source.lookup(*media.key) == media
        assert await source.lookup("fix.test", "nothing/../here?") is None


async def test_bytes_are_downloaded_quarantined_or_not(synapse: FakeSynapse) -> None:
    async with running(synapse) as source:
        async for met in source.located():
            assert isinstance(met, SourceItem)
            if met.resolution.found is None:
                assert met.resolution.state is ResolutionState.PENDING
            elif met.media.kind is MediaKind.LOCAL:
                data = b"".join([piece async for piece in source.open(met.resolution.found)])
                assert hashlib.sha256(data).digest() == met.media.sha256


async def test_lost_and_short_bytes_are_noticed(synapse: FakeSynapse) -> None:
    path = "/_matrix/client/v1/media/download/fix.test/KHUabRSCxHJxifHTrQWdABGy"
    async with running(synapse) as source:
        with pytest.raises(BytesVanishedError, match="3589 came"):
            [piece async for piece in source.open(DownloadBytes("http", path, 4000))]

        (synapse.store / "local_content/KH/Ua/bRSCxHJxifHTrQWdABGy").unlink()
        with pytest.raises(BytesVanishedError, match="gone"):
            [piece async for piece in source.open(DownloadBytes("http", path, 3589))]


async def test_preflight_counts(synapse: FakeSynapse) -> None:
    async with running(synapse) as source:
        findings = await source.preflight()

    assert findings.problems == []
    assert findings.counts == {"users": 2, "local": 22}


async def test_a_token_that_is_no_admins_is_a_problem_in_words(synapse: FakeSynapse) -> None:
    async with running(synapse, token="of-somebody") as source:
        findings = await source.preflight()

        with pytest.raises(SourceError, match="not an admin"):
            [media async for media in source.media()]
        with pytest.raises(SourceError, match="not an admin"):
            await source.lookup("fix.test", "x")

    assert any("not an admin" in problem for problem in findings.problems)


async def test_an_outage_is_never_an_empty_list(synapse: FakeSynapse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediarepo.importers.synapse.http_client._PAUSE_S", 0.01)
    synapse.down = True
    async with running(synapse) as source:
        with pytest.raises(SourceUnavailableError):
            [media async for media in source.media()]
        with pytest.raises(SourceUnavailableError):
            await source.lookup("fix.test", "x")
