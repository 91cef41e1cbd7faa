"""SIGHUP, SIGTERM and SIGINT to a real server, while a client downloads slowly."""

import asyncio
import copy
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import OTHER_SERVER_NAME, SERVER_NAME, document_for
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.timeout(300)

CONFIG = "/_matrix/client/v1/media/config"
READY = "/health/ready"
MEDIA = "/_synapse/admin/v1/media/media.example/nothing"
LARGE = 24 * 1024 * 1024


@pytest.fixture
def document(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> dict[str, Any]:
    return document_for(postgres, s3, log={"format": "json"})


def changed(document: dict[str, Any], **sections: Any) -> dict[str, Any]:
    new = copy.deepcopy(document)
    for name, section in sections.items():
        new[name] = {**new.get(name, {}), **section} if isinstance(section, dict) else section
    return new


class SlowDownload:
    """A download that waits in its middle for as long as it is told to."""

    def __init__(self, answer: aiohttp.ClientResponse, data: bytes) -> None:
        self._answer = answer
        self._data = data
        self._got = b""

    async def begin(self) -> None:
        self._got = await self._answer.content.readexactly(100_000)

    async def is_whole(self) -> bool:
        return self._got + await self._answer.content.read() == self._data


@asynccontextmanager
async def slow_download(server: Serving) -> AsyncIterator[SlowDownload]:
    data = secrets.token_bytes(LARGE)
    media_id = await server.upload(data)
    url = f"{server.url}/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}"
    async with server.session.get(url, headers=server.headers) as answer:
        assert answer.status == 200
        slow = SlowDownload(answer, data)
        await slow.begin()
        yield slow


async def limit(server: Serving) -> int:
    async with server.session.get(f"{server.url}{CONFIG}", headers=server.headers) as answer:
        return int((await answer.json())["m.upload.size"])


async def test_a_hangup_takes_new_limits_tokens_and_lists_over_and_ends_no_download(
    document: dict[str, Any], tmp_path: Path
) -> None:
    async with serving(document, tmp_path) as server, slow_download(server) as slow:
        assert await server.status(MEDIA, token="new-admin") == 401
        new = changed(
            document,
            uploads={"max_bytes": 1234},
            admin={"token": "new-admin"},
            database={"pool_size": 7},
            log={"level": "warning"},
        )
        new["homeservers"][0]["appservices"][0]["as_token"] = "new-bridge"

        server.reload(new)
        await server.logs("config_reloaded")

        assert await server.status(CONFIG) == 401
        assert await server.status(CONFIG, token="new-bridge") == 200
        assert await server.status(MEDIA, token="new-admin") == 404
        assert await server.status(CONFIG, token="new-admin") == 401
        assert await slow.is_whole()
        (needs,) = server.logged("config_needs_restart")

    assert needs["settings"] == ["database.pool_size"]
    assert server.process.returncode == 0


async def test_a_limit_counts_from_the_next_request_on(document: dict[str, Any], tmp_path: Path) -> None:
    async with serving(document, tmp_path) as server:
        server.reload(changed(document, uploads={"max_bytes": 1234}, rate_limits={"users": [{"creates": None}]}))
        (reloaded,) = await server.logs("config_reloaded")

        assert reloaded["settings"] == ["uploads.max_bytes", "rate_limits.users"]
        assert await limit(server) == 1234
        with pytest.raises(AssertionError, match="M_TOO_LARGE"):
            await server.upload(bytes(1235))


async def test_a_configuration_that_cannot_be_used_changes_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    broken = changed(document, uploads={"max_bytes": 1234, "part_bytes": 1})
    key_missing = changed(document, uploads={"max_bytes": 1234})
    key_missing["homeservers"][0]["signing_key_file"] = str(tmp_path / "none")
    async with serving(document, tmp_path) as server, slow_download(server) as slow:
        before, errors = await limit(server), 0
        for text in ("listen: [", broken, key_missing):
            valid = server.config.read_text()
            server.reload(text)
            errors = len(await server.logs("config_reload_failed", errors + 1))
            server.config.write_text(valid)
            assert await limit(server) == before
        assert {line["level"] for line in server.logged("config_reload_failed")} == {"error"}
        assert not server.logged("config_reloaded")
        assert await slow.is_whole()


async def test_a_new_homeserver_and_new_s3_keys_work_after_a_reload(document: dict[str, Any], tmp_path: Path) -> None:
    first, second = document["homeservers"]
    async with serving({**document, "homeservers": [first]}, tmp_path) as server:
        assert await server.status(CONFIG, headers={"Host": OTHER_SERVER_NAME}) == 404
        wrong = changed({**document, "homeservers": [first, second]})
        wrong["stores"]["main"]["secret_access_key"] = "wrong"

        server.reload(wrong)
        await server.answers(READY, 503)
        server.reload({**document, "homeservers": [first, second]})
        await server.answers(READY, 200)

        token = second["appservices"][0]["as_token"]
        assert await server.status(CONFIG, headers={"Host": OTHER_SERVER_NAME}, token=token) == 200
        assert await server.download(await server.upload(b"content")) == b"content"
        assert all("wrong" not in str(line) for line in server.logged("config_reloaded"))


async def test_hangups_in_quick_succession_end_with_the_last_file(document: dict[str, Any], tmp_path: Path) -> None:
    async with serving(document, tmp_path) as server:
        for number in range(1, 30):
            server.reload(changed(document, uploads={"max_bytes": number}))
        async with asyncio.timeout(60):
            while await limit(server) != 29:
                await asyncio.sleep(0.02)

        assert not server.logged("config_reload_failed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_is_told_first_and_then_drains(
    document: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    document = changed(document, listen={"shutdown_delay_ms": 3_000, "shutdown_timeout_ms": 200_000})
    async with serving(document, tmp_path) as server, slow_download(server) as slow:
        server.process.send_signal(number)
        await server.answers(READY, 503)

        media_id = await server.upload(b"while it is not ready")
        assert await server.status(CONFIG) == 200
        await server.refuses_connections()
        assert server.process.returncode is None
        assert await slow.is_whole()
        await asyncio.wait_for(server.process.wait(), 60)

        assert media_id
        assert [len(server.logged(event)) for event in ("stopping", "draining", "stopped")] == [1, 1, 1]
    assert server.process.returncode == 0


async def test_the_drain_ends_after_its_limit(document: dict[str, Any], tmp_path: Path) -> None:
    document = changed(document, listen={"shutdown_timeout_ms": 300})
    async with serving(document, tmp_path) as server, slow_download(server) as slow:
        server.process.terminate()
        await asyncio.wait_for(server.process.wait(), 60)
        with pytest.raises(aiohttp.ClientError):
            await slow.is_whole()
    assert server.process.returncode == 0


async def test_a_second_signal_ends_the_delay_and_a_third_one_the_drain(
    document: dict[str, Any], tmp_path: Path
) -> None:
    document = changed(document, listen={"shutdown_delay_ms": 600_000, "shutdown_timeout_ms": 600_000})
    async with serving(document, tmp_path) as server, slow_download(server):
        server.process.send_signal(signal.SIGTERM)
        await server.logs("stopping")
        assert await server.status(CONFIG) == 200

        server.process.send_signal(signal.SIGTERM)
        await server.refuses_connections()
        server.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(server.process.wait(), 60)
    assert server.process.returncode == 0
