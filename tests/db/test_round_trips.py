"""How often a request waits for Postgres, counted on the wire."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
from yarl import URL

from mediarepo.config.settings import Settings
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import document_for, installed

_WAITED_FOR = {b"S", b"Q"}
"""Messages after which a client waits for the server: Sync and simple queries (Postgres' documentation, 55.7)."""


@dataclass
class Wire:
    """A proxy before Postgres; counts the messages that are answered before anything goes on."""

    round_trips: int = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: URL) -> None:
        path = f"{server.query['host']}/.s.PGSQL.{server.query['port']}"
        theirs, ours = await asyncio.open_unix_connection(path)
        back = asyncio.create_task(_copy(theirs, writer))
        try:
            length = await reader.readexactly(4)
            ours.write(length + await reader.readexactly(int.from_bytes(length) - 4))
            while True:
                kind, length = await reader.readexactly(1), await reader.readexactly(4)
                ours.write(kind + length + await reader.readexactly(int.from_bytes(length) - 4))
                self.round_trips += kind in _WAITED_FOR
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            ours.close()
            await back
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)


@asynccontextmanager
async def counting(postgres: EmbeddedPostgres) -> AsyncIterator[tuple[Wire, str]]:
    wire, dsn = Wire(), URL(postgres.dsn)
    passing: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.add(asyncio.create_task(wire.pass_on(reader, writer, dsn)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield wire, str(dsn.update_query(host="127.0.0.1", port=str(port), sslmode="disable"))
    await asyncio.gather(*passing)


@pytest.mark.parametrize(("deduplicate_early", "max_cached_rows"), [(True, 0), (False, 0), (True, 100)])
async def test_requests_wait_for_postgres_as_seldom_as_possible(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, *, deduplicate_early: bool, max_cached_rows: int
) -> None:
    async with counting(postgres) as (wire, dsn):
        uploads = {"deduplicate_early": deduplicate_early}
        document = document_for(postgres, s3, uploads=uploads, database={"pool_size": 2})
        document["downloads"] = {"max_cached_rows": max_cached_rows}
        await upgrade(Settings.model_validate(document).database)  # it blocks this event loop, and so the proxy
        document["database"]["url"] = dsn
        async with installed(Settings.model_validate(document), migrate=False) as own:
            known = secrets.token_bytes(1000)
            for _ in range(2):  # statements are prepared, tokens remembered
                media_id = await own.upload(known)
                await own.upload(secrets.token_bytes(1000))
                await own.get(own.download_path(media_id))
            new = await fewest(wire, lambda: own.upload(secrets.token_bytes(1000)))
            equal = await fewest(wire, lambda: own.upload(known))
            download = await fewest(wire, lambda: own.get(own.download_path(media_id)))

    assert (new, equal, download) == (2, 1 if deduplicate_early else 2, 0 if max_cached_rows else 1)


async def fewest(wire: Wire, request: Callable[[], Awaitable[object]]) -> int:
    """Count the round trips of a request, a few times: background work may add its own to some of them."""
    counts = []
    for _ in range(5):
        before = wire.round_trips
        await request()
        counts.append(wire.round_trips - before)
    return min(counts)
