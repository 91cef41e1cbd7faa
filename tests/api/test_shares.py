"""Floods of costly requests from one client, while others are served: over HTTP, against servers that say nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.federation.request_auth import sign_request
from mediarepo.federation.signing import new_signing_key
from mediarepo.outbound import ssrf_guard
from tests.pictures.drawn import corners, encoded
from tests.support.installation import SERVER_NAME, TOKEN, Answer, Installation, homeserver, installed, settings_for
from tests.support.peer import Peer
from tests.support.remote_server import RemoteServer, remote_server, serving_file

ATTACKER, SOMEBODY = "198.51.100.7", "203.0.113.5"
GREEDY, MODEST = "@_bridge_greedy:media.example", "@_bridge_modest:media.example"
PICTURE = encoded(corners(64, 48), "PNG")


@pytest.fixture
async def origin(certificate: Path) -> AsyncIterator[RemoteServer]:
    async with remote_server(certificate) as server:
        yield server


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, asyncio.Semaphore]]:
    """Accept connections and say nothing; gives the port, and what is released with each connection."""
    accepted, gate = asyncio.Semaphore(0), asyncio.Event()

    async def stay_silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.release()
        await gate.wait()
        writer.close()

    server = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], accepted
        gate.set()


def sections(certificate: Path, signing_key_file: Path) -> dict[str, Any]:
    return {
        "homeservers": [homeserver(SERVER_NAME, TOKEN, signing_key_file=str(signing_key_file))],
        "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
        "remote_media": {"max_fetches": 8, "max_fetches_per_server": 2, "backoff_ms": 0},
    }


@pytest.fixture
async def ours(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path
) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3, **sections(certificate, signing_key_file))) as running:
        yield running


async def test_made_up_origins_of_one_client_leave_key_fetches_to_another(
    ours: Installation, origin: RemoteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lead_here(host: str) -> Sequence[str]:
        assert host.endswith(".example")
        return ["127.0.0.1"]

    monkeypatch.setattr(ssrf_guard, "_getaddrinfo", lead_here)
    media_id, key, peer = await ours.upload(b"data"), new_signing_key(), Peer(origin)
    path = f"/_matrix/federation/v1/media/download/{media_id}"

    async def pretend(number: int, port: int) -> Answer:
        name = f"made-up.of{number}.example:{port}"
        header = sign_request(key, method="GET", request_target=path, origin=name, destination=SERVER_NAME)
        return await crowd.get(path, token=None, headers={"Authorization": header, "X-Forwarded-For": ATTACKER})

    async with (
        silent_server() as (port, accepted),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session,
    ):
        crowd = replace(ours, session=session)  # one session has a hundred connections at most
        floods = [asyncio.create_task(pretend(number, port)) for number in range(300)]
        for _ in range(10):
            await accepted.acquire()
        honest = await peer.get(ours, path, headers={"X-Forwarded-For": SOMEBODY})
        answered_before = sum(task.done() for task in floods)
        answers = await asyncio.gather(*floods)

    assert (honest.status, answered_before) == (200, 0)
    busy = [answer for answer in answers if answer.status != 401]
    assert len(busy) >= 200
    assert {answer.status for answer in busy} <= {429, 503}
    assert all(answer.headers["Retry-After"] for answer in busy)


@pytest.mark.parametrize("kind", ["download", "thumbnail"])
async def test_silent_servers_that_one_user_asks_leave_fetches_to_others(
    ours: Installation, origin: RemoteServer, kind: str
) -> None:
    origin.federation["abc"] = serving_file(PICTURE)
    kept = await ours.upload(PICTURE)
    query = "?width=32&height=32&method=scale" if kind == "thumbnail" else "?"

    def ask(server_name: str, media_id: str, user_id: str) -> Any:
        return ours.get(f"/_matrix/client/v1/media/{kind}/{server_name}/{media_id}{query}&user_id={user_id}")

    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(silent_server()) for _ in range(4)]
        floods = [
            asyncio.create_task(ask(f"127.0.0.1:{port}", f"id{number}", GREEDY))
            for port, _ in silent
            for number in range(10)
        ]
        for _, accepted in silent[:2]:
            await accepted.acquire()
        theirs = await ask(origin.server_name, "abc", MODEST)
        own = await ask(SERVER_NAME, kept, GREEDY)
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)

    assert (theirs.status, own.status) == (200, 200)
