"""One HTTP/1.1 connection to S3 at the level of asyncio's protocols; httptools (llhttp) reads the answers."""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from mediarepo.storage.transport import Body, MalformedResponseError, TruncatedResponseError

_SMALL_BODY_BYTES = 64 * 1024
"""A body up to this size leaves with its head in one write."""
_SLICE_BYTES = 256 * 1024
_HIGH_WATER_BYTES = 256 * 1024
"""With so much of a body waiting to be taken, nothing more is read from the socket."""
_HEAD_BYTES = 64 * 1024
_INTERIM_RESPONSES = 16
_OK = 200


class HttpResponse:
    """The answer to one request; what httptools finds in the bytes is called in here."""

    def __init__(self, connection: "HttpConnection", on_close: Callable[["HttpConnection"], None]) -> None:
        self._connection: HttpConnection | None = connection
        self._on_close = on_close
        self._headers: dict[bytes, bytes] = {}
        self._chunks: deque[bytes] = deque()
        self._head_bytes = 0
        self._interim = 0
        self._certain = True
        self.buffered = 0
        self.status = 0
        self.content_length: int | None = None
        self.has_head = False
        self.complete = False
        self.keep_alive = True

    @property
    def resumable(self) -> bool:
        """Whether the bytes that were taken are certain: not within a chunk, and not after what is no HTTP."""
        return self._certain

    def header(self, name: str) -> str | None:
        """Return a header's value; of one that stands there several times, all joined by commas."""
        value = self._headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    async def readany(self) -> bytes:
        """Wait for the next bytes of the body; empty at its end.

        Raises OSError: ConnectionResetError when it was closed, TimeoutError when the server is silent.
        """
        while not self._chunks:
            if self.complete:
                return b""
            if self._connection is None:
                raise ConnectionResetError("the response was closed")
            await self._connection.wait()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.buffered = 0
        if self._connection is not None:
            self._connection.resume()
        return data

    def close(self) -> None:
        """Give the connection back; nothing can be read any more."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        self._chunks.clear()
        connection.finish()
        self._on_close(connection)

    def discard(self) -> None:
        """Forget what came; for answers that cannot be trusted."""
        self._chunks.clear()
        self.buffered = 0
        self._certain = False

    def ended_with_connection(self) -> bool:
        """Whether the end of the connection is the end of the body (RFC 9112, 6.3)."""
        return self.has_head and self.content_length is None and b"transfer-encoding" not in self._headers

    def on_message_begin(self) -> None:
        """Note that an answer begins: a second one to the same request makes the connection useless."""
        if self.complete:
            self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which is counted and forgotten; MalformedResponseError when too long."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > _HEAD_BYTES:
            raise MalformedResponseError("its headers are too long")
        if self.has_head:
            return
        key = name.lower()
        self._headers[key] = value if key not in self._headers else self._headers[key] + b", " + value

    def on_headers_complete(self) -> None:
        """Take the status; interim answers (1xx) are passed over, MalformedResponseError when there are too many."""
        if self.complete or self._connection is None:
            return
        status = self._connection.status_code()
        if status < _OK:
            self._interim += 1
            if self._interim > _INTERIM_RESPONSES:
                raise MalformedResponseError("it sends interim responses without end")
            self._headers.clear()
            return
        length = self._headers.get(b"content-length")
        self.content_length = None if length is None else int(length)
        self.status = status
        self.has_head = True

    def on_body(self, data: bytes) -> None:
        """Keep bytes of the body until they are taken."""
        if not self.complete:
            self._chunks.append(data)
            self.buffered += len(data)

    def on_chunk_header(self) -> None:
        """Doubt a chunk until its end has come where it was announced."""
        self._certain = False

    def on_chunk_complete(self) -> None:
        """Trust what has come."""
        self._certain = True

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        if self.has_head and not self.complete and self._connection is not None:
            self.complete = True
            self.keep_alive = self._connection.should_keep_alive()


class HttpConnection(asyncio.BufferedProtocol):
    """Serves one request after the other; whoever waits for the server does so in `wait`, with a deadline.

    `buffer` is where bytes are received before they are read; it is shared by the connections of an event loop.
    """

    def __init__(self, buffer: memoryview, *, read_s: float, on_lost: Callable[["HttpConnection"], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = buffer
        self._read_s = read_s
        self._on_lost = on_lost
        self._response: HttpResponse | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wait_until: float | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: OSError | None = None
        self._writable = True
        self._paused = False
        self._sent_all = True
        self.lost = False
        self.answered = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the shared buffer; its content is read before anything else can come into it."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what came; bytes that nobody asked for end the connection."""
        response = self._response
        if response is None or response.complete:
            self.abort()
            return
        self._read(response, nbytes)
        if response.buffered > _HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _read(self, response: HttpResponse, nbytes: int) -> None:
        self.answered = True
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if response.complete:
                response.keep_alive = False
            else:
                response.discard()
                self._fail(MalformedResponseError(str(exc.__context__ or exc)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; a body without a length ends here."""
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        response = self._response
        if (response is None or not response.complete) and self._failure is None:
            if response is not None and exc is None and response.ended_with_connection():
                response.complete, response.keep_alive = True, False
            elif response is not None and response.has_head:
                self._failure = TruncatedResponseError("the connection ended within the body")
            else:
                self._failure = ConnectionResetError("the connection ended without an answer")
                self._failure.__cause__ = exc
        self._on_lost(self)
        self._wake()

    def pause_writing(self) -> None:
        """Note that the server takes no bytes just now."""
        self._writable = False

    def resume_writing(self) -> None:
        """Note that it takes bytes again."""
        self._writable = True
        self._wake()

    def status_code(self) -> int:
        """Return the status code of the answer that is being read."""
        return self._parser.get_status_code()

    def should_keep_alive(self) -> bool:
        """Whether the server lets the connection be used again."""
        return self._parser.should_keep_alive()

    async def exchange(
        self, head: bytes, body: Body | None, *, deadline: float | None, on_close: Callable[["HttpConnection"], None]
    ) -> HttpResponse:
        """Send a request, and wait for the head of its answer; `deadline` is the loop's time, and for the body, too.

        Raises OSError; TimeoutError when the server was silent for too long. The connection is closed then.
        """
        response = self._response = HttpResponse(self, on_close)
        self._parser = httptools.HttpResponseParser(response)
        self._deadline = deadline
        self._sent_all = True
        self.answered = False
        try:
            if body is None or body.size_bytes <= _SMALL_BODY_BYTES:
                self._transport.write(head if body is None else b"".join((head, *body.chunks)))
            else:
                self._transport.write(head)
                await self._send_slices(body, response)
            while not response.has_head:
                await self.wait()
        except BaseException:
            self.abort()
            raise
        return response

    async def _send_slices(self, body: Body, response: HttpResponse) -> None:
        """Send a large body, until the server answers; one that does so early wants no more of it."""
        self._sent_all = False
        for chunk in body.chunks:
            view = memoryview(chunk)
            for start in range(0, len(view), _SLICE_BYTES):
                while not self._writable and not response.has_head:
                    await self.wait(stalls=False)
                if response.has_head or self._failure is not None:
                    return
                self._transport.write(view[start : start + _SLICE_BYTES])
        self._sent_all = True

    async def wait(self, *, stalls: bool = True) -> None:
        """Wait until anything happens; raises what has ended the connection before.

        With `stalls`, the server may be silent for the read timeout only; always, until the deadline.
        """
        if self._failure is not None:
            raise self._failure
        until = self._loop.time() + self._read_s if stalls else None
        if self._deadline is not None and (until is None or self._deadline < until):
            until = self._deadline
        self._waiter = self._loop.create_future()
        self._wait_until = until
        if until is not None and (self._timer is None or self._timer.when() > until):
            self._set_timer(until)
        try:
            await self._waiter
        finally:
            self._waiter = self._wait_until = None

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_time)

    def _on_time(self) -> None:
        """End a wait that takes too long; the timer is not set anew for each wait, as most are short."""
        self._timer = None
        if self._wait_until is None or self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._wait_until:
            self._set_timer(self._wait_until)
            return
        self._fail(TimeoutError("the server was silent for too long"))

    def _fail(self, failure: OSError) -> None:
        if self._failure is None:
            self._failure = failure
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def resume(self) -> None:
        """Read from the socket again."""
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def finish(self) -> None:
        """End the exchange; what cannot serve another one is closed."""
        response, self._response = self._response, None
        if response is None or not (response.complete and response.keep_alive and self._sent_all):
            self.abort()
        self.resume()
        self.idle_since = self._loop.time()

    @property
    def is_open(self) -> bool:
        """Whether it was not closed, as far as is known."""
        return not self.lost and self._failure is None and not self._transport.is_closing()

    def can_serve(self) -> bool:
        """Whether it can take another request: open, and with nothing to read, neither its end nor stray bytes."""
        if not self.is_open:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def abort(self) -> None:
        """Close at once, whatever is under way; whoever waits is told."""
        self._transport.abort()
        if self._failure is None and not (self._response is not None and self._response.complete):
            self._failure = ConnectionResetError("the connection was closed")
        self._wake()
