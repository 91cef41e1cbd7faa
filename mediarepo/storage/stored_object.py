"""An object that is being read."""

from collections.abc import Awaitable, Callable

import structlog

from mediarepo.model.byte_stream import BackpressureSink, Sink
from mediarepo.storage.errors import S3Location, StorageUnavailableError, error_from_exception
from mediarepo.storage.read_connections import ReadConnections
from mediarepo.storage.retry import Retries
from mediarepo.storage.transport import TRANSPORT_ERRORS, Response

log = structlog.get_logger(__name__)

_PATIENCE_S = 1.0
"""How long a download keeps its connection while its client takes no bytes and nobody else wants it."""
_PROGRESS_BYTES = 1024 * 1024
"""So much must come after a failure for it to be forgotten; else an S3 that always breaks off is asked for ever."""
_SMALLEST_PIECE_BYTES = 32 * 1024
_LARGEST_PIECE_BYTES = 256 * 1024
_KEEPS_UP_S = 0.1
"""A client that takes the largest piece within this time is read for without pause again."""

Reopen = Callable[[int, int | None], Awaitable[Response]]
"""Asks for the same object, or span, from an offset on, at most so many bytes; what it gives holds a connection."""


class StoredObject:
    """What S3 has begun to send: `size_bytes` bytes, of the span asked for or of the whole object.

    Objects never change, so reading goes on by range where it stopped: when S3 breaks off, and when a client that took
    no bytes takes some again. The bytes are counted: fewer or more of them are an error.
    """

    __slots__ = (
        "_client",
        "_connections",
        "_failed_at",
        "_place",
        "_received",
        "_reopen",
        "_response",
        "_retries",
        "_took_any",
        "etag",
        "size_bytes",
    )

    def __init__(
        self,
        response: Response,
        place: S3Location,
        *,
        size_bytes: int,
        connections: ReadConnections,
        reopen: Reopen,
        retries: Retries,
        client: str,
    ) -> None:
        self._response: Response | None = response
        self._place = place
        self._connections = connections
        self._reopen = reopen
        self._retries = retries
        self._client = client
        self._received = 0
        self._failed_at: int | None = None
        self._took_any = False
        self.etag = response.header("etag")
        self.size_bytes = size_bytes

    async def send_to(self, sink: Sink) -> None:
        """Push every byte; the sink's own errors pass unchanged.

        Raises StorageUnavailableError when S3 stops before `size_bytes` and does not go on soon.
        """
        if isinstance(sink, BackpressureSink):
            while not await self._send_streaming(sink):
                await self._send_in_pieces(sink)
            return
        while data := await self.receive():
            await sink.write(data)

    async def read(self) -> bytes:
        """Take everything into memory; for small objects."""
        pieces = []
        while data := await self.receive():
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give the connection back."""
        if self._response is not None:
            self._response.close()
            self._response = None
            self._connections.release(self._client)

    async def _send_streaming(self, sink: BackpressureSink) -> bool:
        """Send while the client takes bytes; False when its connection to S3 was given back, for it does not."""
        while data := await self.receive():
            rest = memoryview(data)
            while rest := rest[sink.offer(rest) :]:
                if not await self._ready(sink):
                    self._received -= len(rest)
                    return False
        return True

    async def _ready(self, sink: BackpressureSink) -> bool:
        """Wait for the client; False when the connection was given back meanwhile."""

        def give_back() -> None:
            self.close()
            sink.wake()

        self._connections.blocked(self, self._client, give_back)
        try:
            if not await sink.ready(_PATIENCE_S):
                self.close()
        finally:
            self._connections.unblocked(self)
        return self._response is not None

    async def _send_in_pieces(self, sink: BackpressureSink) -> None:
        """Send a piece each time the client has taken the one before; nothing is held between. Until it keeps up."""
        piece_bytes = _SMALLEST_PIECE_BYTES
        sink.take_in_pieces(_LARGEST_PIECE_BYTES)
        while self._received < self.size_bytes:
            if await sink.ready(_KEEPS_UP_S):
                if piece_bytes == _LARGEST_PIECE_BYTES:
                    break
            else:
                await sink.ready()
            taken = await self._send_piece(sink, piece_bytes)
            whole = min(2 * taken, _LARGEST_PIECE_BYTES) if taken >= piece_bytes else taken
            piece_bytes = max(whole, _SMALLEST_PIECE_BYTES)
        sink.take_in_pieces(None)

    async def _send_piece(self, sink: BackpressureSink, piece_bytes: int) -> int:
        """Send so many bytes, or as many as the client's socket takes; gives how many."""
        begin = self._received
        end = min(begin + piece_bytes, self.size_bytes)
        async with self._connections.share_of_slow(self._client):
            await self._resume(max_bytes=end - begin)
            try:
                while self._received < end and (data := await self._next(end)):
                    taken = sink.offer(memoryview(data))
                    self._received -= len(data) - taken
                    if taken < len(data):
                        break
            finally:
                self.close()
        return self._received - begin

    async def receive(self) -> bytes:
        """Wait for the next bytes; empty at the end."""
        return await self._next(self.size_bytes)

    async def _next(self, end: int) -> bytes:
        if self._response is None:
            if self._received == end:
                return b""
            await self._resume(max_bytes=end - self._received)
        while True:
            try:
                data = await self._response.readany() if self._response is not None else b""
            except TRANSPORT_ERRORS as exc:
                failure = error_from_exception(exc, self._place)
                if self._response is not None and self._took_any and not self._response.resumable:
                    raise failure from exc
                if self._received == end:  # what is missing is no byte of the object
                    return b""
                await self._go_on(failure, end)
                continue
            self._received += len(data)
            self._took_any = True
            if self._received > end:
                raise StorageUnavailableError(f"{self._place.endpoint_url} sent more bytes than it should have")
            if data or self._received == end:
                self._note_progress()
                return data
            words = f"{self._place.endpoint_url} sent fewer bytes than it should have"
            await self._go_on(StorageUnavailableError(words, transient=True), end)

    def _note_progress(self) -> None:
        """Forget failures once much has come since."""
        if self._failed_at is None:
            return
        if self._received == self.size_bytes or self._received - self._failed_at >= _PROGRESS_BYTES:
            self._retries.succeeded()
            self._failed_at = None

    async def _go_on(self, failure: StorageUnavailableError, end: int) -> None:
        """Go on where S3 broke off."""
        log.info("s3_read_resumed", reason=failure.hint, offset=self._received, size_bytes=self.size_bytes)
        self.close()
        await self._resume(failure, max_bytes=end - self._received)

    async def _resume(self, failure: StorageUnavailableError | None = None, *, max_bytes: int | None = None) -> None:
        """Ask for the rest, or so much of it; after a failure with pauses, until it is raised for good."""
        while True:
            if failure is not None:
                if self._failed_at is None:
                    self._failed_at = self._received
                if not await self._retries.pause(failure):
                    raise failure
            try:
                self._response = await self._reopen(self._received, max_bytes)
                self._took_any = False
            except StorageUnavailableError as exc:
                failure = exc
                continue
            self._retries.answered()
            return


class OpenObject:
    """An object that is being asked for; a context of its own, since a generator's costs each download a tenth."""

    __slots__ = ("_answer", "_stored")

    def __init__(self, answer: Awaitable[StoredObject]) -> None:
        self._answer = answer

    async def __aenter__(self) -> StoredObject:
        self._stored = await self._answer
        return self._stored

    async def __aexit__(self, *_: object) -> None:
        self._stored.close()
