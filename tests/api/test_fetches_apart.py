"""Homeservers fetch remote media each in its own name: what fails for one costs its neighbours nothing."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.api.test_remote_media import federating, path_of, stored
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    SERVER_NAME,
    TOKEN,
    Answer,
    Installation,
    homeserver,
    installed,
    settings_for,
)
from tests.support.remote_server import RemoteServer, refusing, remote_server, serving_file

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def origin(certificate: Path) -> AsyncIterator[RemoteServer]:
    async with remote_server(certificate) as server:
        yield server


def settings(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, key: Path, *, both_sign: bool = True, **limits: Any
) -> Any:
    document = federating(certificate, key, **{"backoff_ms": 60_000, "remember_failure_ms": 60_000, **limits})
    signing = {"signing_key_file": str(key)} if both_sign else {}
    document["homeservers"][1] = homeserver(OTHER_SERVER_NAME, OTHER_TOKEN, **signing)
    return settings_for(postgres, s3, **document)


def by_origin(welcome: Handler, others: Handler) -> Handler:
    """Answer one homeserver so, and the other one so."""

    async def handler(request: web.Request) -> web.StreamResponse:
        found = re.search('origin="([^"]+)"', request.headers.get("Authorization", ""))
        return await (welcome if found is not None and found[1] == SERVER_NAME else others)(request)

    return handler


async def ask(own: Installation, path: str, *, other: bool = False) -> Answer:
    if other:
        return await own.get(path, token=OTHER_TOKEN, host=OTHER_SERVER_NAME)
    return await own.get(path, token=TOKEN, host=SERVER_NAME)


async def test_a_homeserver_without_a_key_keeps_no_media_from_its_neighbour(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path, origin: RemoteServer
) -> None:
    origin.federation["abc"] = serving_file(b"data")
    async with installed(settings(postgres, s3, certificate, signing_key_file, both_sign=False)) as own:
        statuses = [(await ask(own, path_of(origin, "abc"), other=other)).status for other in (True, True, False)]
        await stored(own, origin)

        assert statuses == [502, 502, 200]
        assert (await ask(own, path_of(origin, "abc"), other=True)).body == b"data"


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_whom_another_server_refuses_keeps_no_media_from_its_neighbour(
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    certificate: Path,
    signing_key_file: Path,
    origin: RemoteServer,
    status: int,
) -> None:
    for media_id in ("a", "b", "c"):
        origin.federation[media_id] = by_origin(serving_file(b"data"), refusing(status, "M_UNKNOWN"))
    async with installed(settings(postgres, s3, certificate, signing_key_file)) as own:
        refused = [await ask(own, path_of(origin, media_id), other=True) for media_id in ("a", "b", "c")]
        answered = [await ask(own, path_of(origin, media_id)) for media_id in ("a", "b", "c")]

        assert 200 not in {answer.status for answer in refused}
        assert [answer.status for answer in answered] == [200, 200, 200]


async def test_who_waits_for_a_neighbours_fetch_that_fails_fetches_in_the_own_name(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path, origin: RemoteServer
) -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def refuse_late(request: web.Request) -> web.StreamResponse:
        asked.set()
        await released.wait()
        return await refusing(403, "M_FORBIDDEN")(request)

    origin.federation["abc"] = by_origin(serving_file(b"data"), refuse_late)
    given = settings(postgres, s3, certificate, signing_key_file)
    async with installed(given) as one, installed(given, migrate=False) as two:
        first = asyncio.create_task(ask(one, path_of(origin, "abc"), other=True))
        await asked.wait()
        waiting = [asyncio.create_task(ask(process, path_of(origin, "abc"))) for process in (one, two, one)]
        released.set()
        answers = await asyncio.gather(*waiting)

        assert (await first).status == 502
        assert {(answer.status, answer.body) for answer in answers} == {(200, b"data")}
        assert len(origin.asked("/federation/")) == 2
