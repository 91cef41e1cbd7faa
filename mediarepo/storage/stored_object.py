"""An object that is being read, and the shared connections for reading from S3."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

import aiohttp
import structlog

from mediarepo.model.byte_stream import PacedSink, Sink
from mediarepo.storage.errors import S3Location, StorageUnavailableError, error_from_exception

_RETRY_AFTER_S = 5


class ReadConnections:
    """So many connections; a download whose client takes no bytes lends its connection to whoever waits for one.

    Whoever waits longer than `wait_s` gets StorageUnavailableError.
    """

    def __init__(self, limit: int, wait_s: float) -> None:
        self._limit = limit
        self._wait_s = wait_s
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._blocked: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self.in_use = 0

    @property
    def waiting(self) -> int:
        """Return how many wait for a connection."""
        return len(self._waiters)

    async def acquire(self, *, wait_s: float | None = None) -> None:
        """Take a connection, from a download that is blocked if none is free."""
        if self.in_use >= self._limit:
            self._reclaim()
        if self.in_use < self._limit and not self._waiters:
            self.in_use += 1
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiters.append(granted)
        try:
            async with asyncio.timeout(self._wait_s if wait_s is None else wait_s):
                await granted
        except BaseException as exc:
            self._withdraw(granted)
            if isinstance(exc, TimeoutError):
                raise StorageUnavailableError(
                    "none of max_connections was free", retry_after_s=_RETRY_AFTER_S, timed_out=True
                ) from exc
            raise

    def release(self) -> None:
        """Give a connection back."""
        self.in_use -= 1
        self._grant()

    def blocked(self, holder: object, give_back: Callable[[], None]) -> None:
        """Note that a download's client takes no bytes; `give_back` is called once, if its connection is wanted."""
        self._blocked[holder] = give_back
        if self._waiters:
            self._reclaim()

    def unblocked(self, holder: object) -> None:
        """Note that the client takes bytes again, or that the connection was given back."""
        self._blocked.pop(holder, None)

    def _reclaim(self) -> None:
        """Have the download that has been blocked the longest give its connection back."""
        if self._blocked:
            _, give_back = self._blocked.popitem(last=False)
            give_back()

    def _withdraw(self, granted: asyncio.Future[None]) -> None:
        if granted in self._waiters:
            self._waiters.remove(granted)
        elif granted.done() and not granted.cancelled():
            self.release()

    def _grant(self) -> None:
        while self._waiters and self.in_use < self._limit:
            granted = self._waiters.popleft()
            if not granted.done():
                self.in_use += 1
                granted.set_result(None)


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
        place: S3Location,
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
                await self._go_on(error_from_exception(exc, self._place))
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
