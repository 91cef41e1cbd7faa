"""A load generator for where wrk is not installed: plain sockets, just enough of HTTP/1.1."""

import asyncio
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BUFFER_BYTES = 512 * 1024
_MAX_HEAD_BYTES = 64 * 1024


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    received_bytes: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Asking:
    """Makes one request after another; each body differs in its first 16 bytes."""

    address: str
    method: str
    paths: Sequence[str]
    headers: Mapping[str, str]
    body: bytes
    count: int = 0

    def next(self) -> list[bytes]:
        self.count += 1
        lines = {"Host": self.address} | dict(self.headers)
        if self.body:
            lines["Content-Length"] = str(len(self.body) + 16)
        path = self.paths[self.count % len(self.paths)]
        head = f"{self.method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        if not self.body:
            return [f"{head}\r\n".encode("ascii")]
        return [f"{head}\r\n{self.count:016d}".encode("ascii"), self.body]


async def generate(
    address: str,
    method: str,
    paths: Sequence[str],
    *,
    headers: Mapping[str, str],
    body_bytes: int,
    connections: int,
    seconds: float,
) -> tuple[int, int, float, int]:
    """Ask on all connections at once; gives requests answered, bytes received, seconds and errors."""
    tally = _Tally()
    options = _Asking(address, method, paths, headers, os.urandom(body_bytes - 16) if body_bytes else b"")
    began = time.perf_counter()
    until = began + seconds
    await asyncio.gather(*(_connection(options, tally, until) for _ in range(connections)))
    return tally.requests, tally.received_bytes, time.perf_counter() - began, tally.errors


async def _connection(options: _Asking, tally: _Tally, until: float) -> None:
    """Ask until the time is over; a connection that breaks is an error, and is made anew."""
    host, _, port = options.address.rpartition(":")
    loop, buffer = asyncio.get_running_loop(), bytearray(_BUFFER_BYTES)
    while time.perf_counter() < until:
        with socket.socket() as connection:
            connection.setblocking(False)  # noqa: FBT003 - the standard library's way
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await loop.sock_connect(connection, (host, int(port)))
                while time.perf_counter() < until:
                    for piece in options.next():
                        await loop.sock_sendall(connection, piece)
                    await _answer(connection, buffer, tally, until)
            except (OSError, ValueError):
                tally.errors += 1


async def _answer(connection: socket.socket, buffer: bytearray, tally: _Tally, until: float) -> None:
    """Read one response, or what comes of it until the time is over; ValueError when it is not HTTP."""
    loop, head = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in head:
        data = await loop.sock_recv(connection, _MAX_HEAD_BYTES)
        if not data or len(head) > _MAX_HEAD_BYTES:
            raise ValueError("the connection ended within a head")
        head += data
    head, _, rest = head.partition(b"\r\n\r\n")
    tally.received_bytes += len(rest)
    missing = _content_length(head) - len(rest)
    while missing > 0:
        if time.perf_counter() >= until:
            return
        count = await loop.sock_recv_into(connection, memoryview(buffer)[: min(missing, _BUFFER_BYTES)])
        if not count:
            raise ValueError("the connection ended within a body")
        missing -= count
        tally.received_bytes += count
    tally.requests += 1
    if not head.startswith(b"HTTP/1.1 2"):
        tally.errors += 1


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
