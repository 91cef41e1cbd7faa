"""ICAP servers: OPTIONS and RESPMOD (RFC 3507), with previews and 204.

Content is sent as the body of an HTTP response; the server lets it pass (204, or the same bytes again), or replaces it.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mediarepo.config.scanners import ScannerConfig
from mediarepo.model.scans import ScanResult, ScanSubject, SendContent, Verdict
from mediarepo.scanners.scanner import Connection, ScannerError, connected, pieces_of, printable, send_and_receive

_PORT = 1344
_MAX_HEADERS = 100
_PIECE_BYTES = 64 * 1024
_MAX_PREVIEW_BYTES = 64 * 1024
_CONTINUE, _OK, _NO_CONTENT = 100, 200, 204
_HTTP_OK = range(200, 300)
_FOUND_HEADERS = ("x-infection-found", "x-virus-id", "x-violations-found", "x-blocked-reason")


@dataclass(frozen=True, slots=True)
class _Options:
    """What a server has said to OPTIONS; `preview_bytes` None: it wants no preview."""

    signatures: str
    preview_bytes: int | None
    allows_204: bool


@dataclass(frozen=True, slots=True)
class _Head:
    """The status and headers of an answer; names in lower case."""

    status: int
    headers: Mapping[str, str]


class _Respmod:
    """A sink that sends a body in chunks: first the preview, then the rest when the server asks for it."""

    def __init__(self, connection: Connection, size_bytes: int, preview_bytes: int | None) -> None:
        self.sha256 = hashlib.sha256()
        self.head: _Head | None = None
        """The answer's head, if it came instead of a request for what follows the preview."""
        self.may_answer = asyncio.Event()
        """Set once the server may give its answer; until then the sink reads what it says."""
        self._connection = connection
        self._preview_left = preview_bytes
        self._whole_in_preview = preview_bytes is not None and size_bytes <= preview_bytes
        self._left = size_bytes
        if preview_bytes is None:
            self.may_answer.set()

    async def write(self, data: bytes) -> None:
        """Send a piece; only hash it once the server has answered."""
        for piece in pieces_of(data):
            self._left -= len(piece)
            self.sha256.update(piece)
            if self.head is None:
                await self._send(piece)

    async def _send(self, piece: memoryview) -> None:
        if self._preview_left is not None and len(piece) >= self._preview_left:
            first, piece = piece[: self._preview_left], piece[self._preview_left :]
            await self._chunk(first)
            self._preview_left = None
            if piece or self._left > 0:
                await self._ask()
        elif self._preview_left is not None:
            self._preview_left -= len(piece)
        if self.head is None:
            await self._chunk(piece)

    async def _ask(self) -> None:
        """End the preview; the server says 100 when it wants the rest."""
        await self._connection.write(b"0\r\n\r\n")
        head = await read_head(self._connection)
        if head.status != _CONTINUE:
            self.head = head
        self.may_answer.set()

    async def _chunk(self, piece: memoryview) -> None:
        if piece:
            await self._connection.write(b"%x\r\n" % len(piece), piece, b"\r\n")

    async def end(self) -> None:
        """End the body."""
        if self.head is None:
            await self._connection.write(b"0; ieof\r\n\r\n" if self._whole_in_preview else b"0\r\n\r\n")


@dataclass(slots=True)
class Icap:
    """An ICAP service, by its URL."""

    config: ScannerConfig
    _options: _Options | None = field(default=None, init=False)

    async def check(self) -> str:
        """Ask OPTIONS, and return the ISTag. Raises ScannerError, also when there is no RESPMOD."""
        self._options = None
        return (await self._ask_options()).signatures

    async def _ask_options(self) -> _Options:
        async with self._connected() as connection:
            await connection.write(self._request("OPTIONS", "Encapsulated: null-body=0"))
            head = await read_head(connection)
        if head.status != _OK:
            raise ScannerError(f"OPTIONS was answered with {head.status}")
        methods = {name.strip().upper() for name in head.headers.get("methods", "").split(",")}
        if "RESPMOD" not in methods:
            raise ScannerError("the service has no RESPMOD")
        preview = head.headers.get("preview", "")
        allowed = {one.strip() for one in head.headers.get("allow", "").split(",")}
        self._options = _Options(
            signatures=printable(head.headers.get("istag", "").strip('"')),
            preview_bytes=min(int(preview), _MAX_PREVIEW_BYTES) if preview.isascii() and preview.isdigit() else None,
            allows_204="204" in allowed,
        )
        return self._options

    async def scan(self, subject: ScanSubject, send: SendContent) -> ScanResult:
        """Have content scanned. Raises ScannerError."""
        options = self._options or await self._ask_options()
        async with self._connected() as connection:
            await connection.write(self._respmod(subject, options))
            sink = _Respmod(connection, subject.size_bytes, options.preview_bytes)
            sending = asyncio.create_task(_send(sink, send), name="icap sending")
            answer = asyncio.create_task(_answer(connection, sink, sending, subject.size_bytes), name="icap answer")
            result = await send_and_receive(sending, answer)
        return ScanResult(result.verdict, result.signatures or options.signatures, result.detail)

    def _connected(self) -> AbstractAsyncContextManager[Connection]:
        return connected(self.config.address, _PORT, self.config.connect_timeout_ms)

    def _request(self, method: str, *lines: str) -> bytes:
        parts = urlsplit(self.config.address)
        head = [f"{method} {self.config.address} ICAP/1.0", f"Host: {parts.netloc}", "Connection: close", *lines]
        return "\r\n".join([*head, "", ""]).encode()

    def _respmod(self, subject: ScanSubject, options: _Options) -> bytes:
        request = f"GET http://mediarepo.invalid/{subject.sha256.hex()} HTTP/1.1\r\nHost: mediarepo.invalid\r\n\r\n"
        content_type = printable(subject.content_type).encode("ascii", "replace").decode()
        response = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {subject.size_bytes}\r\n\r\n"
        lines = [f"Encapsulated: req-hdr=0, res-hdr={len(request)}, res-body={len(request) + len(response)}"]
        if options.allows_204:
            lines.append("Allow: 204")
        if options.preview_bytes is not None:
            lines.append(f"Preview: {options.preview_bytes}")
        return self._request("RESPMOD", *lines) + request.encode() + response.encode()


async def _send(sink: _Respmod, send: SendContent) -> None:
    try:
        await send(sink)
        await sink.end()
    finally:
        sink.may_answer.set()


async def _answer(connection: Connection, sink: _Respmod, sending: "asyncio.Task[None]", size_bytes: int) -> ScanResult:
    """Read the answer, which may begin before everything was sent."""
    await sink.may_answer.wait()
    head = sink.head or await read_head(connection)
    signatures = printable(head.headers.get("istag", "").strip('"'))
    if head.status == _NO_CONTENT:
        return ScanResult(Verdict.CLEAN, signatures)
    if head.status != _OK:
        raise ScannerError(f"RESPMOD was answered with {head.status}")
    if (found := found_in(head)) is not None:
        return ScanResult(Verdict.INFECTED, signatures, found)
    returned = await _read_body(connection, head, size_bytes)
    await asyncio.shield(sending)  # only now is it known what was sent
    if returned == sink.sha256.digest():
        return ScanResult(Verdict.CLEAN, signatures)
    return ScanResult(Verdict.INFECTED, signatures, "replaced by the ICAP server")


async def read_head(connection: Connection) -> _Head:
    """Read a status line and headers. Raises ScannerError when they are none."""
    status_line = (await connection.read_until(b"\r\n")).decode("latin-1").split(" ", 2)
    if len(status_line) < 2 or not status_line[0].startswith(("ICAP/", "HTTP/")) or not status_line[1].isdigit():  # noqa: PLR2004 - version and status
        raise ScannerError("the answer is not ICAP")
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = (await connection.read_until(b"\r\n")).decode("latin-1")
        if not line:
            return _Head(int(status_line[1]), headers)
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    raise ScannerError("the answer has too many headers")


def found_in(head: _Head) -> str | None:
    """Return what a server names as found, in the headers that are in use for it."""
    for name in _FOUND_HEADERS:
        if name in head.headers:
            value = head.headers[name]
            threats = [part.split("=", 1)[1] for part in value.split(";") if part.strip().lower().startswith("threat=")]
            return printable(threats[0] if threats else value) or name
    return None


async def _read_body(connection: Connection, head: _Head, size_bytes: int) -> bytes | None:
    """Read the answer's HTTP response; its body's hash, or None when it cannot be the content that was sent."""
    encapsulated = head.headers.get("encapsulated", "")
    if "res-body" not in encapsulated:
        return None
    if "res-hdr" in encapsulated and (await read_head(connection)).status not in _HTTP_OK:
        return None
    received, hashed = 0, hashlib.sha256()
    while received <= size_bytes:
        count = _chunk_length(await connection.read_until(b"\r\n"))
        if count == 0:
            return hashed.digest()
        received += count
        while count:
            piece = await connection.read_exactly(min(count, _PIECE_BYTES))
            hashed.update(piece)
            count -= len(piece)
        await connection.read_exactly(len(b"\r\n"))
    return None


def _chunk_length(line: bytes) -> int:
    digits = line.split(b";")[0].strip()
    if not digits or not set(digits) <= set(b"0123456789abcdefABCDEF"):
        raise ScannerError("the answer's body is not chunked")
    return int(digits, 16)
