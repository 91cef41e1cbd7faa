"""A pool of HTTP connections to one server, over which S3 objects are read and written."""

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from ssl import SSLContext
from typing import Self

import aiohappyeyeballs
from yarl import URL

from mediarepo.storage.http_connection import HttpConnection, HttpResponse
from mediarepo.storage.transport import Body, ConnectTimeoutError

_BUFFER_BYTES = 256 * 1024
_KEEP_ALIVE_S = 15.0
_RESOLVED_S = 10.0
_HAPPY_EYEBALLS_S = 0.25

_Addresses = list[tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]]


class HttpTransport:
    """Keeps connections open; with `limit` requests at once at most, and `total_s` for a whole request.

    A connection that turns out to have been closed meanwhile is replaced, and the request sent again, when nothing was
    answered yet: requests to S3 may be repeated.
    """

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
        self._host = base.host or ""
        self._port = base.port or 0
        self._tls = tls
        self._connect_s = connect_s
        self._read_s = read_s
        self._total_s = total_s
        self._places = None if limit is None else asyncio.Semaphore(limit)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._idle: deque[HttpConnection] = deque()
        self._open: set[HttpConnection] = set()
        self._addresses: _Addresses = []
        self._resolved = 0.0
        self._reaper: asyncio.TimerHandle | None = None
        self.in_use = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._all_lost = asyncio.Event()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
        if self._open:
            async with asyncio.timeout(self._connect_s):
                await self._all_lost.wait()

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: Body | None = None
    ) -> HttpResponse:
        """Send a request."""
        head = _head(method, target, headers, body)
        deadline = None if self._total_s is None else self._loop.time() + self._total_s
        await self._enter(deadline)
        try:
            return await self._exchange(head, body, deadline)
        except BaseException:
            self._leave()
            raise

    async def _enter(self, deadline: float | None) -> None:
        if self._places is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._places.acquire()
            except TimeoutError as exc:
                raise ConnectTimeoutError("no connection was free in time") from exc
        self.in_use += 1

    def _leave(self) -> None:
        self.in_use -= 1
        if self._places is not None:
            self._places.release()

    async def _exchange(self, head: bytes, body: Body | None, deadline: float | None) -> HttpResponse:
        connection = self._take_idle()
        if connection is not None:
            try:
                return await connection.exchange(head, body, deadline=deadline, on_close=self._on_close)
            except ConnectionError:
                if connection.answered:
                    raise
        connection = await self._connect(deadline)
        return await connection.exchange(head, body, deadline=deadline, on_close=self._on_close)

    def _on_close(self, connection: HttpConnection) -> None:
        """Keep a connection for the next request, unless it was closed."""
        if connection.is_open:
            self._idle.append(connection)
            if self._reaper is None:
                self._reaper = self._loop.call_later(_KEEP_ALIVE_S, self._close_old)
        else:
            connection.abort()
        self._leave()

    def _take_idle(self) -> HttpConnection | None:
        """Take the connection that was used last, so that those not needed grow old."""
        while self._idle:
            connection = self._idle.pop()
            if connection.can_serve():
                return connection
            connection.abort()
        return None

    def _close_old(self) -> None:
        self._reaper = None
        oldest = self._loop.time() - _KEEP_ALIVE_S
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.popleft().abort()
        if self._idle:
            self._reaper = self._loop.call_at(self._idle[0].idle_since + _KEEP_ALIVE_S, self._close_old)

    def _forget(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._all_lost.set()
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self, deadline: float | None) -> HttpConnection:
        until = self._loop.time() + self._connect_s
        try:
            async with asyncio.timeout_at(until if deadline is None else min(until, deadline)):
                connected = await aiohappyeyeballs.start_connection(
                    await self._resolve(), happy_eyeballs_delay=_HAPPY_EYEBALLS_S
                )
                _, connection = await self._loop.create_connection(
                    self._new_connection,
                    sock=connected,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError as exc:
            raise ConnectTimeoutError("no connection came about in time") from exc
        if not connection.lost:
            self._open.add(connection)
            self._all_lost.clear()
        return connection

    def _new_connection(self) -> HttpConnection:
        return HttpConnection(self._buffer, read_s=self._read_s, on_lost=self._forget)

    async def _resolve(self) -> _Addresses:
        if not self._addresses or self._loop.time() - self._resolved > _RESOLVED_S:
            self._addresses = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
            self._resolved = self._loop.time()
        return self._addresses


def _head(method: str, target: str, headers: Mapping[str, str], body: Body | None) -> bytes:
    """Write a request's head; raises ValueError for a value that would be two lines."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"content-length: {body.size_bytes}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise ValueError("a header's value has a line break")
    return f"{head}\r\n\r\n".encode("latin-1")
