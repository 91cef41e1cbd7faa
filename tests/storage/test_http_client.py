"""What the HTTP client that transfers bytes does by itself."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.storage import s3_client
from mediarepo.storage.aiohttp_transport import AiohttpTransport
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import FaultyS3, Seen, reply


@pytest.mark.parametrize("http_client", ["httptools"])
async def test_a_small_body_leaves_with_its_head_in_one_write(
    config: Callable[..., StoreConfig], faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = socket.socket.send

    def noting(self: socket.socket, data: bytes, *rest: int) -> int:
        if bytes(data).startswith(b"PUT "):
            sent.append(bytes(data))
        return send(self, data, *rest)

    monkeypatch.setattr(socket.socket, "send", noting)
    faulty.plan(reply(200, headers='ETag: "e"\r\n'))
    async with Store("main", config(endpoint_url=faulty.endpoint_url)) as store:
        await store.put(f"{store.prefix}/a", [b"ab", memoryview(b"c")], size_bytes=3, metadata={})
    (request,) = sent
    assert request.endswith(b"\r\n\r\nabc")


async def test_a_connection_that_brought_more_than_the_answer_is_not_used_again(
    config: Callable[..., StoreConfig], faulty: FaultyS3
) -> None:
    async def twice(_: FaultyS3, __: Seen, client: asyncio.StreamWriter) -> bool:
        client.writelines(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body for body in (b"abc", b"xyz"))
        return True

    faulty.plan(twice, reply(200, b"abc"))
    async with Store("main", config(endpoint_url=faulty.endpoint_url)) as store:
        for _ in range(2):
            assert await store.read(f"{store.prefix}/a", max_bytes=3) == b"abc"
    assert faulty.connections == 2


async def test_a_value_of_two_lines_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"line break|control character"):
        await store._wire.writing.send("PUT", "/media/a", {"x-amz-meta-a": "b\r\nx: y"})


async def test_without_httptools_aiohttp_transfers(
    config: Callable[..., StoreConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "find_spec", lambda _: None)
    async with Store("main", config()) as store:
        assert isinstance(store.write_connections, AiohttpTransport)
        await store.put(f"{store.prefix}/a", [b"abc"], size_bytes=3, metadata={})
        assert await store.read(f"{store.prefix}/a", max_bytes=3) == b"abc"
