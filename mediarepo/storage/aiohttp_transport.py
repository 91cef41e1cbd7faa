"""Transfers bytes with aiohttp's client: where httptools is not installed, and where the configuration asks for it."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from ssl import SSLContext
from typing import Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from mediarepo.storage.transport import Body

_SLICE_BYTES = 256 * 1024
_SKIPPED_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Chunks(Payload):
    """A body of known size."""

    _autoclose = True

    def __init__(self, body: Body) -> None:
        super().__init__(body.chunks)
        self._size = body.size_bytes
        self._chunks = body.chunks

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the chunks, large ones in slices so that little is buffered."""
        for chunk in self._chunks:
            if len(chunk) <= _SLICE_BYTES:
                await writer.write(chunk)
                continue
            view = memoryview(chunk)
            for start in range(0, len(chunk), _SLICE_BYTES):
                await writer.write(view[start : start + _SLICE_BYTES])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Show the body as text, as aiohttp asks of every payload."""
        return b"".join(self._chunks).decode(encoding, errors)


class AiohttpResponse:
    """An answer that aiohttp's client got."""

    __slots__ = ("_response", "_transport", "content_length", "status")

    def __init__(self, response: aiohttp.ClientResponse, transport: "AiohttpTransport") -> None:
        self._response: aiohttp.ClientResponse | None = response
        self._transport = transport
        self.status = response.status
        self.content_length = response.content_length

    @property
    def resumable(self) -> bool:
        """Whether the bytes that were taken are certain: aiohttp does not tell where a chunk ends."""
        return self.header("transfer-encoding") is None

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        return None if self._response is None else self._response.headers.get(name)

    async def readany(self) -> bytes:
        """Wait for the next bytes of the body; empty at its end."""
        if self._response is None:
            return b""
        async with asyncio.timeout(self._transport.read_s):  # aiohttp's own ends not every wait
            return await self._response.content.readany()

    def close(self) -> None:
        """Give the connection back."""
        if self._response is not None:
            self._response.close()
            self._response = None
            self._transport.in_use -= 1


class AiohttpTransport:
    """A session of aiohttp's client; with `limit` connections at most, and `total_s` for a whole request."""

    def __init__(
        self,
        base: URL,
        *,
        tls: SSLContext | None,
        connect_s: float,
        read_s: float,
        total_s: float | None = None,
        limit: int | None = None,
    ) -> None:
        self._base = str(base.origin())
        self._tls = tls
        self._limit = limit
        self.read_s = read_s
        self._answer_s = connect_s + (read_s if total_s is None else total_s)
        self._timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=connect_s, sock_read=read_s)
        self._stack = AsyncExitStack()
        self.in_use = 0

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._limit or 0, ssl=self._tls or False)
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_SKIPPED_HEADERS,
                timeout=self._timeout,
                trust_env=False,
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: Body | None = None
    ) -> AiohttpResponse:
        """Send a request."""
        url = URL(f"{self._base}{target}", encoded=True)
        data = None if body is None else Chunks(body)
        self.in_use += 1
        try:
            async with asyncio.timeout(self._answer_s):
                response = await self._session.request(method, url, headers=headers, data=data, allow_redirects=False)
        except BaseException:
            self.in_use -= 1
            raise
        return AiohttpResponse(response, self)
