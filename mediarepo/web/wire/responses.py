"""Media on its way out: headers decided first, then bytes pushed."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiohttp import HttpVersion11, web

from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.model.sinks import Sink

log = structlog.get_logger(__name__)

_WHOLE_BYTES = 128 * 1024
"""Bodies up to this size are sent as one; measured: one write costs less than a stream's set-up."""


class Bytes(Protocol):
    """Stored bytes that S3 has begun to answer with."""

    @property
    def size_bytes(self) -> int:
        """How many bytes will come."""
        ...

    async def read(self) -> bytes:
        """Take them all at once."""
        ...

    async def send_to(self, sink: Sink) -> None:
        """Push them in order."""
        ...


class Arriving(Protocol):
    """Bytes that are on their way to us."""

    async def send_to(self, sink: Sink) -> None:
        """Push them in order, as they come."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before and after the bytes in a body; the head leaves together with the first of them."""

    head: bytes = b""
    tail: bytes = b""


NO_FRAME = Frame()


class ResponseSink:
    """Takes bytes for a client; a client that takes none for too long is let go."""

    def __init__(self, response: web.StreamResponse, idle_timeout_ms: int, head: bytes = b"") -> None:
        self._response = response
        self._head = head
        self._idle_timeout_s = idle_timeout_ms / 1000

    async def write(self, data: bytes) -> None:
        """Write and wait until the client's buffer has room."""
        if self._head:
            data, self._head = self._head + data, b""
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._response.write(data)
        except TimeoutError as exc:
            raise ConnectionAbortedError("the client takes no bytes") from exc


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with JSON."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(body=text, status=status, headers={"Content-Type": "application/json", **(headers or {})})


async def send_bytes(
    request: web.Request,
    opened: AbstractAsyncContextManager[Bytes],
    *,
    size_bytes: int,
    status: int,
    headers: Mapping[str, str],
    idle_timeout_ms: int,
    frame: Frame = NO_FRAME,
) -> web.StreamResponse:
    """Send stored bytes; S3 has answered, and with the right length, before any header leaves."""
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
            sink = ResponseSink(response, idle_timeout_ms, head=frame.head)
            await stored.send_to(sink)
            if frame.tail:
                await sink.write(frame.tail)
        except ConnectionAbortedError as exc:
            _break_off(request, exc)
        except MatrixError as exc:
            _break_off(request, exc)
        return response


async def send_arriving(
    request: web.Request,
    arriving: Arriving,
    *,
    size_bytes: int | None,
    headers: Mapping[str, str],
    idle_timeout_ms: int,
) -> web.StreamResponse:
    """Send bytes that are still on their way to us; the connection breaks off when they stop coming."""
    response = web.StreamResponse(headers=headers)
    if size_bytes is not None:
        response.content_length = size_bytes
    elif request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        await arriving.send_to(ResponseSink(response, idle_timeout_ms))
    except (ConnectionAbortedError, MatrixError) as exc:
        _break_off(request, exc)
    return response


def _break_off(request: web.Request, reason: Exception) -> None:
    """End the connection, so that the client notices that the body is incomplete."""
    log.warning("download_broken_off", reason=str(reason))
    if request.transport is not None:
        request.transport.abort()
