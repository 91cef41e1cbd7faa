"""What judges a storm sees each kind of broken promise: servers that break them, on purpose, are found out."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from mediarepo.app.foundation import open_foundation
from mediarepo.config.settings import Settings
from tests.storm import aftermath, load
from tests.storm.history import Item, State
from tests.storm.site import Site, site
from tests.support.certificates import self_signed, signing_key
from tests.support.installation import SERVER_NAME

pytestmark = pytest.mark.timeout(900)

LIAR, HONEST = "liar", "one"


class Liar:
    """Stands before an honest server, and breaks one promise at a time."""

    def __init__(self, server_url: str, session: ClientSession) -> None:
        self._server_url, self._session = server_url, session
        self.spoil: Callable[[int, bytes], Awaitable[tuple[int, bytes]]] | None = None
        self.swallows = False

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.swallows and request.method == "POST":
            return web.json_response({"content_uri": f"mxc://{SERVER_NAME}/{'never' * 6}"})
        url, headers = f"{self._server_url}{request.rel_url}", {"Host": SERVER_NAME}
        headers |= {name: request.headers[name] for name in ("Authorization", "Range") if name in request.headers}
        async with self._session.request(request.method, url, data=body, headers=headers) as told:
            status, data = told.status, await told.read()
        if self.spoil is not None:
            status, data = await self.spoil(status, data)
        return web.Response(status=status, body=data)


@asynccontextmanager
async def lying(own: Site) -> AsyncIterator[Liar]:
    """Let clients reach the first server through a liar, too."""
    liar, app = Liar(own.servers[0].url, own.session), web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", liar.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    own.load.client.urls[LIAR] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield liar
    finally:
        await runner.cleanup()


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Site]:
    certificate, key = self_signed(tmp_path / "server.pem"), signing_key(tmp_path / "signing.key")
    async with site(3, certificate, key, standby=False) as running:
        yield running


def found(own: Site) -> set[str]:
    """Take what has been found so far."""
    kinds = {one.kind for one in own.history.violations}
    own.history.violations.clear()
    return kinds


async def uploaded(own: Site) -> Item:
    await own.load.small(random.Random(len(own.history.items)))
    return own.history.items[-1]


async def test_each_broken_promise_is_found_out(own: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    item, hidden, deleted = [await uploaded(own) for _ in range(3)]
    await own.load.act(hidden, "quarantine", HONEST, ends=State.HIDDEN)
    await own.load.act(deleted, "delete", HONEST, ends=State.DELETED)
    for one in (item, hidden, deleted):
        await own.load.everywhere(one)
    assert found(own) == set()

    async with lying(own) as liar:
        assert await answered(own, liar, item, flipped) == {"wrong"}
        assert await answered(own, liar, item, cut_short) == {"wrong"}
        assert await answered(own, liar, item, missing) == {"lost"}
        assert await answered(own, liar, hidden, as_before(hidden)) == {"shown"}
        assert await answered(own, liar, deleted, as_before(deleted)) == {"shown"}
        assert await answered(own, liar, item, unexplained) == {"unexplained"}
        assert await answered(own, liar, item, unauthorised) == {"verdict"}
        monkeypatch.setattr(load, "USUAL_DEADLINE_S", 1)
        assert await answered(own, liar, item, never) == {"stuck"}
        monkeypatch.undo()

        liar.spoil, liar.swallows = None, True
        own.load.client.urls = dict.fromkeys(["nginx", *own.load.client.urls], own.load.client.urls[LIAR])
        never_stored = await uploaded(own)
        liar.swallows = False
        await own.load.look(never_stored, LIAR)
        assert found(own) == {"lost"}
        own.history.items.remove(never_stored)


async def answered(
    own: Site, liar: Liar, item: Item, spoil: Callable[[int, bytes], Awaitable[tuple[int, bytes]]]
) -> set[str]:
    """Download through the liar; gives what the judge says."""
    liar.spoil = spoil
    await own.load.look(item, LIAR)
    return found(own)


async def flipped(status: int, data: bytes) -> tuple[int, bytes]:
    return status, data[:-1] + bytes([data[-1] ^ 1])


async def cut_short(status: int, data: bytes) -> tuple[int, bytes]:
    return status, data[:-1]


async def missing(_status: int, _data: bytes) -> tuple[int, bytes]:
    return 404, json.dumps({"errcode": "M_NOT_FOUND", "error": "gone"}).encode()


async def unexplained(_status: int, _data: bytes) -> tuple[int, bytes]:
    return 500, b"{}"


async def unauthorised(_status: int, _data: bytes) -> tuple[int, bytes]:
    return 401, b"{}"


async def never(_status: int, _data: bytes) -> tuple[int, bytes]:
    await asyncio.sleep(3600)
    raise AssertionError


def as_before(item: Item) -> Callable[[int, bytes], Awaitable[tuple[int, bytes]]]:
    """Serve what an acknowledged act has taken away."""

    async def spoil(_status: int, _data: bytes) -> tuple[int, bytes]:
        return 200, item.data()

    return spoil


async def test_what_is_left_behind_is_found_out(own: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await uploaded(own)
    await aftermath._comes_to_rest(own)
    await aftermath._bucket_is_the_database(own)
    assert found(own) == set()

    async with lying(own) as liar, open_foundation(Settings.model_validate(own.document)) as foundation:
        monkeypatch.setattr(aftermath, "_REST_S", 2)
        liar.spoil = busy
        honest, own.servers[0].url = own.servers[0].url, own.load.client.urls.pop(LIAR)
        await aftermath._comes_to_rest(own)
        own.servers[0].url = honest
        assert found(own) == {"no rest"}

        store = foundation.stores.by_name["main"]
        leftover = f"{store.prefix}/local/2020010100/k4nzzzzzz-{'a' * 32}"
        await store.put(leftover, [b"nobody knows it"], size_bytes=15, metadata={})
        await aftermath._bucket_is_the_database(own)
        assert found(own) == {"sweep"}
        await store.delete([leftover])

        async with foundation.database.connection() as connection:
            key = await connection.fetchval("SELECT object_key FROM blob LIMIT 1")
        await store.delete([key])
        await aftermath._bucket_is_the_database(own)
        assert found(own) == {"sweep"}


async def busy(status: int, data: bytes) -> tuple[int, bytes]:
    return status, data.replace(
        b'mediarepo_in_use{resource="requests"} 0.0', b'mediarepo_in_use{resource="requests"} 1.0'
    )
