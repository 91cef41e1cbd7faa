"""Clients that take their time with downloads hold no connection to S3, and nobody up."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import SERVER_NAME, TOKEN, Installation, installed, settings_for
from tests.support.raw import RawConnection

CONNECTIONS = 3
SIZE = 12_000_000


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3, store={"max_connections": CONNECTIONS})) as running:
        yield running


class Slow:
    """A client that asks for media and reads only when told to."""

    def __init__(self, connection: RawConnection) -> None:
        self._connection = connection
        self.head = ""

    async def begin(self, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        await self._connection.send(request.encode())
        self.head = (await self._connection.reader.readuntil(b"\r\n\r\n")).decode()

    async def read(self, size_bytes: int) -> bytes:
        return await self._connection.reader.readexactly(size_bytes)


async def test_slow_clients_hold_no_connection_while_others_want_one_and_get_every_byte(own: Installation) -> None:
    content, small = secrets.token_bytes(SIZE), secrets.token_bytes(200_000)
    large_path = own.download_path(await own.upload(content))
    small_path = own.download_path(await own.upload(small))
    connections = own.repository.foundation.stores.by_name["main"].read_connections
    opened = [RawConnection.open(own.url) for _ in range(4 * CONNECTIONS)]
    slow = [Slow(await one.__aenter__()) for one in opened]
    try:
        for client in slow:
            await client.begin(large_path)
            assert " 200 " in client.head

        for _ in range(20):
            assert (await own.get(small_path)).body == small

        got = await asyncio.gather(*(client.read(SIZE) for client in slow))
        assert all(one == content for one in got)
    finally:
        for one in opened:
            await one.__aexit__(None, None, None)
    async with asyncio.timeout(30):
        while connections.in_use:
            await asyncio.sleep(0.01)


async def test_slow_clients_that_leave_give_everything_back(own: Installation) -> None:
    path = own.download_path(await own.upload(secrets.token_bytes(SIZE)))
    connections = own.repository.foundation.stores.by_name["main"].read_connections
    for _ in range(3 * CONNECTIONS):
        async with RawConnection.open(own.url) as connection:
            await Slow(connection).begin(path)
            connection.abort()

    async with asyncio.timeout(30):
        while connections.in_use or connections.waiting:
            await asyncio.sleep(0.01)
    assert (await own.get(path)).status == 200


async def test_a_range_of_a_slow_client_is_right_to_the_byte(own: Installation) -> None:
    content = secrets.token_bytes(SIZE)
    path = own.download_path(await own.upload(content))
    async with RawConnection.open(own.url) as connection:
        await connection.send(
            f"GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Range: bytes=1000-{SIZE - 2}\r\n\r\n".encode()
        )
        await connection.reader.readuntil(b"\r\n\r\n")
        others = [own.get(path) for _ in range(2 * CONNECTIONS)]
        assert all(one.body == content for one in await asyncio.gather(*others))
        assert await connection.reader.readexactly(SIZE - 1001) == content[1000 : SIZE - 1]
