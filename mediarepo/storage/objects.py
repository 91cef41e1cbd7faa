"""An object whose bytes are on their way."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import structlog

from mediarepo.model.byte_stream import PacedSink, Sink
from mediarepo.storage.errors import StorageUnavailableError
from mediarepo.storage.explain import Place, error_of_failure
from mediarepo.storage.read_connections import ReadConnections

log = structlog.get_logger(__name__)

_PATIENCE_S = 1.0
"""How long a download keeps its connection while its client takes no bytes and nobody else wants it."""
_RESUME_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)

Reopen = Callable[[int], Awaitable[aiohttp.ClientResponse]]
"""Asks for the same object, or span, from an offset on; what it gives was checked, and holds a connection."""


class StoredObject:
    """What S3 has begun to send: `size_bytes` bytes, of the span asked for or of the whole object.

    Objects never change, so reading goes on by range where it stopped: when S3 breaks off, and when a client that took
    no bytes takes some again. The bytes are counted: fewer or more of them are an error.
    """

    __slots__ = ("_connections", "_place", "_received", "_reopen", "_response", "etag", "size_bytes")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        place: Place,
        *,
        size_bytes: int,
        connections: ReadConnections,
        reopen: Reopen,
    ) -> None:
        self._response: aiohttp.ClientResponse | None = response
        self._place = place
        self._connections = connections
        self._reopen = reopen
        self._received = 0
        self.etag = response.headers.get("ETag")
        self.size_bytes = size_bytes

    async def send_to(self, sink: Sink) -> None:
        """Push every byte; the sink's own errors pass unchanged.

        Raises StorageUnavailableError when S3 stops before `size_bytes` and does not go on soon.
        """
        if isinstance(sink, PacedSink):
            await self._send_paced(sink)
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
            self._connections.release()

    async def _send_paced(self, sink: PacedSink) -> None:
        while data := await self.receive():
            rest = memoryview(data)
            while rest := rest[sink.offer(rest) :]:
                if not await self._ready(sink):
                    self._received -= len(rest)
                    break
            if rest:
                del data, rest  # a slow client holds no memory
                await sink.ready()

    async def _ready(self, sink: PacedSink) -> bool:
        """Wait for the client; False when the connection was given back meanwhile."""

        def give_back() -> None:
            self.close()
            sink.wake()

        self._connections.blocked(self, give_back)
        try:
            if not await sink.ready(_PATIENCE_S):
                self.close()
        finally:
            self._connections.unblocked(self)
        return self._response is not None

    async def receive(self) -> bytes:
        """Wait for the next bytes; empty at the end."""
        if self._response is None:
            if self._received == self.size_bytes:
                return b""
            await self._resume()
        while True:
            try:
                data = await self._response.content.readany() if self._response is not None else b""
            except (aiohttp.ClientError, OSError) as exc:
                await self._go_on(error_of_failure(exc, self._place))
                continue
            self._received += len(data)
            if self._received > self.size_bytes:
                raise StorageUnavailableError(f"{self._place.endpoint_url} sent more bytes than it should have")
            if data or self._received == self.size_bytes:
                return data
            await self._go_on(
                StorageUnavailableError(f"{self._place.endpoint_url} sent fewer bytes than it should have")
            )

    async def _go_on(self, failure: StorageUnavailableError) -> None:
        """Go on where S3 broke off; the failure is raised if that does not succeed soon."""
        self.close()
        log.info("s3_read_resumed", reason=failure.hint, offset=self._received, size_bytes=self.size_bytes)
        for pause_s in _RESUME_PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                await self._resume()
            except StorageUnavailableError:
                continue
            return
        raise failure

    async def _resume(self) -> None:
        self._response = await self._reopen(self._received)


class Opening:
    """An object that is being asked for; a context of its own, since a generator's costs each download a tenth."""

    __slots__ = ("_answer", "_stored")

    def __init__(self, answer: Awaitable[StoredObject]) -> None:
        self._answer = answer

    async def __aenter__(self) -> StoredObject:
        self._stored = await self._answer
        return self._stored

    async def __aexit__(self, *_: object) -> None:
        self._stored.close()
