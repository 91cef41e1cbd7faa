"""What all scanners can do, and their connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol
from urllib.parse import urlsplit

from mediarepo.model.scans import ScanResult, ScanSubject, SendContent

MAX_LINE_BYTES = 64 * 1024
_MAX_WORDS = 200
_PIECE_BYTES = 64 * 1024


class ScannerError(Exception):
    """A scanner gave no verdict: it cannot be reached, is too slow, or its answer is not understood."""


class Scanner(Protocol):
    """A scanner; each call has a connection of its own."""

    async def check(self) -> str:
        """Return the version of its signatures. Raises ScannerError when it does not answer."""
        ...

    async def scan(self, subject: ScanSubject, send: SendContent) -> ScanResult:
        """Have content scanned. Raises ScannerError without a verdict; what `send` raises passes unchanged."""
        ...


def printable(text: str) -> str:
    """Cut and clean what a scanner says, for logs and rows."""
    return "".join(one if one.isprintable() else " " for one in text).strip()[:_MAX_WORDS]


@contextlib.asynccontextmanager
async def connected(address: str, default_port: int, connect_timeout_ms: int) -> AsyncIterator["Connection"]:
    """Connect to `tcp://HOST:PORT`, another URL's host, or `unix:PATH`. Raises ScannerError."""
    parts = urlsplit(address)
    try:
        async with asyncio.timeout(connect_timeout_ms / 1000):
            if parts.scheme == "unix":
                reader, writer = await asyncio.open_unix_connection(parts.path, limit=MAX_LINE_BYTES)
            else:
                host, port = parts.hostname or "", parts.port or default_port
                reader, writer = await asyncio.open_connection(host, port, limit=MAX_LINE_BYTES)
    except TimeoutError as exc:
        raise ScannerError("no connection in time") from exc
    except OSError as exc:
        raise ScannerError(f"no connection: {printable(exc.strerror or str(exc))}") from exc
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


class Connection:
    """One connection to a scanner; its errors are ScannerErrors."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def write(self, *pieces: bytes | memoryview) -> None:
        """Send bytes, as fast as they are taken. Raises ScannerError."""
        try:
            for piece in pieces:
                self._writer.write(piece)
            await self._writer.drain()
        except OSError as exc:
            raise ScannerError("the connection broke") from exc

    async def read_until(self, end: bytes) -> bytes:
        """Read up to an end, which is left out; at most 64 KiB. Raises ScannerError."""
        try:
            return (await self._reader.readuntil(end)).removesuffix(end)
        except asyncio.IncompleteReadError as exc:
            raise ScannerError("the connection ended before the answer") from exc
        except asyncio.LimitOverrunError as exc:
            raise ScannerError("the answer is too long") from exc
        except OSError as exc:
            raise ScannerError("the connection broke") from exc

    async def read_exactly(self, count: int) -> bytes:
        """Read so many bytes. Raises ScannerError."""
        try:
            return await self._reader.readexactly(count)
        except asyncio.IncompleteReadError as exc:
            raise ScannerError("the connection ended within the answer") from exc
        except OSError as exc:
            raise ScannerError("the connection broke") from exc


def pieces_of(data: bytes | memoryview) -> list[memoryview]:
    """Cut bytes into pieces of at most 64 KiB, without copying."""
    view = memoryview(data)
    return [view[start : start + _PIECE_BYTES] for start in range(0, len(view), _PIECE_BYTES)]


async def send_and_receive(sending: "asyncio.Task[None]", answer: "asyncio.Task[ScanResult]") -> ScanResult:
    """Wait for the answer, which may come before everything was sent; a failure to send asks for the answer, too."""
    try:
        await asyncio.wait({sending, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            with contextlib.suppress(ScannerError):  # whoever closes a connection early has often said why
                await sending
        return await answer
    finally:
        for task in (sending, answer):
            task.cancel()
        await asyncio.gather(sending, answer, return_exceptions=True)
