"""Media responses: headers decided first, then bytes pushed."""

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiohttp import HttpVersion11, web

from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.model.byte_stream import Sink
from mediarepo.web.http.client_socket import ClientSocket

log = structlog.get_logger(__name__)

_WHOLE_BYTES = 128 * 1024
"""Bodies up to this size are sent as one; measured: one write costs less than a stream's set-up."""

_UNSENT_BYTES = 256 * 1024
"""So much may wait in the system for a client; the more, the dearer are clients that take it slowly."""
_LOW_WATER_BYTES = 16 * 1024


class StoredBody(Protocol):
    """Stored bytes; S3's response has begun."""

    @property
    def size_bytes(self) -> int:
        """The length of the body."""
        ...

    async def read(self) -> bytes:
        """Read all bytes at once."""
        ...

    async def send_to(self, sink: Sink) -> None:
        """Send the bytes in order."""
        ...


class StreamedBody(Protocol):
    """Bytes that are still arriving."""

    async def send_to(self, sink: Sink) -> None:
        """Send the bytes in order, as they arrive."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes before and after the content; the first ones are sent together with the first content."""

    head: bytes = b""
    tail: bytes = b""


NO_FRAME = Frame()


class ResponseSink:
    """Sends bytes to a client; disconnects one that takes none for too long."""

    def __init__(self, response: web.StreamResponse, idle_timeout_ms: int, head: bytes = b"") -> None:
        self._response = response
        self._head = head
        self._idle_timeout_s = idle_timeout_ms / 1000

    async def write(self, data: bytes) -> None:
        """Write bytes, waiting for room in the client's buffer.

        Raises ConnectionAbortedError when the client takes none in time.
        """
        if self._head:
            data, self._head = self._head + data, b""
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._response.write(data)
        except TimeoutError as exc:
            raise ConnectionAbortedError("the client takes no bytes") from exc


class BackpressureResponseSink(ResponseSink):
    """Writes to the client's socket directly, only what it takes at once (`model.byte_stream.BackpressureSink`).

    aiohttp would buffer what the client does not take. Use it for bodies of a known length, after the headers were
    sent, on plain connections; `is_possible` says whether this is one.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse, idle_timeout_ms: int) -> None:
        super().__init__(response, idle_timeout_ms)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self._transport = transport
        self._writer = request.writer
        connection = transport.get_extra_info("socket")
        self._socket = ClientSocket(connection.fileno(), connection.family)
        self._most_unsent = _UNSENT_BYTES
        self._socket.be_writable_below(_UNSENT_BYTES)
        self._waiting: asyncio.Future[bool] | None = None

    @staticmethod
    def is_possible(request: web.Request) -> bool:
        """Return whether the client's connection is a plain socket."""
        transport = request.transport
        if transport is None or transport.get_extra_info("ssl_object") is not None:
            return False
        return transport.get_extra_info("socket") is not None

    def offer(self, data: memoryview) -> int:
        """Write as many bytes as the socket's buffer should hold; returns how many.

        Raises ConnectionResetError when the client left.
        """
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")
        if self._transport.get_write_buffer_size() or self._socket.unsent() >= self._most_unsent:
            return 0
        try:
            taken = os.write(self._socket.descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise ConnectionResetError("the client has left") from exc
        self._writer.output_size += taken
        return taken

    async def ready(self, timeout_s: float | None = None) -> bool:
        """Wait until the socket takes bytes; a client that takes any is not idle, though there is no room yet.

        Raises ConnectionAbortedError when the client takes none in time.
        """
        if timeout_s is not None:
            return await self._ready(timeout_s) is True
        while True:
            unconfirmed = self._unconfirmed()
            settled = await self._ready(self._idle_timeout_s)
            if settled is not None:
                return settled
            if self._unconfirmed() >= unconfirmed:
                raise ConnectionAbortedError("the client takes no bytes")

    async def _ready(self, timeout_s: float) -> bool | None:
        """Wait for room, or to be woken (False), or for nothing (None); the loop watches its own descriptor already."""
        if self._transport.is_closing():  # its descriptor may be another connection's by now
            raise ConnectionResetError("the client has left")
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        self._waiting = waiting
        descriptor = os.dup(self._socket.descriptor)
        loop.add_writer(descriptor, _settle, waiting)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            return None
        finally:
            self._waiting = None
            loop.remove_writer(descriptor)
            os.close(descriptor)

    def _unconfirmed(self) -> int:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")
        return self._socket.unconfirmed()

    def take_in_pieces(self, piece_bytes: int | None) -> None:
        """Configure the socket, so that at most one piece is buffered for a slow client."""
        if self._transport.is_closing():
            return
        self._most_unsent = _UNSENT_BYTES if piece_bytes is None else piece_bytes
        self._socket.be_writable_below(_UNSENT_BYTES if piece_bytes is None else _LOW_WATER_BYTES)
        if piece_bytes is not None:
            self._socket.make_room(piece_bytes)

    def wake(self) -> None:
        """Make `ready` return False."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(False)


def _settle(waiting: "asyncio.Future[bool]") -> None:
    if not waiting.done():
        waiting.set_result(True)


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON response."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(body=text, status=status, headers={"Content-Type": "application/json", **(headers or {})})


async def send_bytes(
    request: web.Request,
    opened: AbstractAsyncContextManager[StoredBody],
    *,
    size_bytes: int,
    status: int,
    headers: Mapping[str, str],
    idle_timeout_ms: int,
    frame: Frame = NO_FRAME,
) -> web.StreamResponse:
    """Send stored bytes; S3 has answered, and with the right length, before any header is sent.

    Raises UnavailableError when the object does not have the size that its row says.
    """
    async with opened as stored:
        if stored.size_bytes != size_bytes:
            log.error("object_has_wrong_size", expected=size_bytes, found=stored.size_bytes)
            raise UnavailableError("the stored object does not have the size it should have", retry_after_s=60)
        if size_bytes <= _WHOLE_BYTES:
            body = await stored.read()
            return web.Response(
                body=body if frame is NO_FRAME else frame.head + body + frame.tail, status=status, headers=headers
            )
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(frame.head) + size_bytes + len(frame.tail)
        await response.prepare(request)
        try:
            sink = await _body_sink(request, response, idle_timeout_ms, frame.head)
            await stored.send_to(sink)
            if frame.tail:
                await sink.write(frame.tail)
        except ConnectionAbortedError as exc:
            _break_off(request, exc)
        except MatrixError as exc:
            _break_off(request, exc)
        return response


async def _body_sink(
    request: web.Request, response: web.StreamResponse, idle_timeout_ms: int, head: bytes
) -> ResponseSink:
    """Send the headers, and what stands before the bytes, and make what takes the bytes."""
    if not BackpressureResponseSink.is_possible(request):
        return ResponseSink(response, idle_timeout_ms, head=head)
    if head:
        await ResponseSink(response, idle_timeout_ms).write(head)
    else:
        request.writer.send_headers()
    return BackpressureResponseSink(request, response, idle_timeout_ms)


async def send_arriving(
    request: web.Request,
    arriving: StreamedBody,
    *,
    size_bytes: int | None,
    headers: Mapping[str, str],
    idle_timeout_ms: int,
) -> web.StreamResponse:
    """Send bytes that are still arriving; the connection is closed when they stop coming."""
    response = web.StreamResponse(headers=headers)
    if size_bytes is not None:
        response.content_length = size_bytes
    elif request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        if size_bytes is None:  # then aiohttp frames what is written
            await arriving.send_to(ResponseSink(response, idle_timeout_ms))
        else:
            await arriving.send_to(await _body_sink(request, response, idle_timeout_ms, b""))
    except (ConnectionAbortedError, MatrixError) as exc:
        _break_off(request, exc)
    return response


def _break_off(request: web.Request, reason: Exception) -> None:
    """End the connection, so that the client notices that the body is incomplete."""
    log.warning("download_aborted", reason=str(reason))
    if request.transport is not None:
        request.transport.abort()
