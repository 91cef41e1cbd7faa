"""Content that is passed on to clients while it is being stored.

Storing sets the pace, never a client: bytes stay in memory for a moment, and whoever falls behind gets the rest from
S3 once it is stored.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from mediarepo.errors import MatrixError, NotFoundError
from mediarepo.model.byte_stream import BackpressureSink, Sink
from mediarepo.model.media import Media

Rest = Callable[[int, Sink], Awaitable[None]]
"""Sends what is left from an offset on, from S3, once everything is stored, if the reader may have it."""


ANNOUNCING_S = 0.05
ANNOUNCING_WINDOWS = 8
"""How long, and how many windows at most, the first bytes are kept for those who are just being told of them."""


class Reservation:
    """Memory that was taken of a budget; what is given back is given once."""

    def __init__(self, budget: "TeeBudget", size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._budget = budget

    def shrink_to(self, size_bytes: int) -> None:
        """Give back all but so much."""
        more = max(self.size_bytes - size_bytes, 0)
        self.size_bytes -= more
        self._budget.give(more)

    def end(self) -> None:
        """Give everything back."""
        self.shrink_to(0)


class TeeBudget:
    """Memory for all tees together; who gets none is not teed."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = self._free = limit_bytes

    @property
    def in_use(self) -> int:
        """How much is taken, in bytes."""
        return self._limit - self._free

    def take(self, *sizes_bytes: int) -> Reservation | None:
        """Take memory: the first of these amounts that there is; None when there is none of them."""
        for size_bytes in sizes_bytes:
            if size_bytes <= self._free:
                self._free -= size_bytes
                return Reservation(self, size_bytes)
        return None

    def give(self, size_bytes: int) -> None:
        """Give memory back."""
        self._free += size_bytes


class Tee:
    """Bytes on their way, for any number of readers; `window_bytes` is what is kept of them, None: everything.

    So much more is kept as `reserved` allows until the first bytes have been announced. Readers hold no more than the
    piece that they are just sending, and none at all while a client takes nothing that says so (a PacedSink).
    `media` is what the row is going to be; `size_bytes` is None while the length is not known for certain.
    `on_first_bytes` is called once, soon after the first bytes have come: an answer that is broken within its first
    piece has failed by then.
    """

    def __init__(
        self,
        media: Media,
        *,
        size_bytes: int | None,
        window_bytes: int | None,
        reserved: Reservation | None = None,
    ) -> None:
        self.media = media
        self.size_bytes = size_bytes
        self._window_bytes = window_bytes
        self._reserved = reserved
        self._announced = False
        self.readers = 0
        """How many have been let in and have not got everything yet."""
        self.on_left: Callable[[], None] | None = None
        """Called whenever a reader has got everything, or has left."""
        self.on_first_bytes: Callable[[], None] | None = None
        self._pieces: deque[bytes] = deque()
        self._start = 0
        self._end = 0
        self._ended = False
        self._failure: MatrixError | None = None
        self._changed = asyncio.Event()
        self.hidden_from: frozenset[str] = frozenset()

    @property
    def from_start(self) -> bool:
        """Whether somebody who begins to read now still gets the first byte from memory."""
        return self._start == 0 and self._failure is None

    @property
    def held_bytes(self) -> int:
        """How many bytes are in memory."""
        return self._end - self._start

    def add(self, piece: bytes) -> None:
        """Take the next bytes; the oldest leave when the window is full."""
        self._pieces.append(piece)
        self._end += len(piece)
        if self.on_first_bytes is not None:
            asyncio.get_running_loop().call_soon(self._announce, self.on_first_bytes)
            self.on_first_bytes = None
        self._trim()
        self._tell()

    def _trim(self) -> None:
        if self._window_bytes is None:
            return
        window_bytes = self._window_bytes
        if self._reserved is not None and not self._announced:
            window_bytes = max(window_bytes, self._reserved.size_bytes)
        while len(self._pieces) > 1 and self._end - self._start > window_bytes:
            self._start += len(self._pieces.popleft())

    def _announce(self, call: Callable[[], None]) -> None:
        """Tell of the first bytes, and keep them until those who wait have had their turn."""
        if self._failure is None:
            call()
        asyncio.get_running_loop().call_later(ANNOUNCING_S, self._end_announcing)

    def _end_announcing(self) -> None:
        """Keep no more than a window from now on, and give back what was reserved beyond it."""
        self._announced = True
        self._trim()
        if self._reserved is not None and self._window_bytes is not None:
            self._reserved.shrink_to(self._window_bytes)

    def end(self) -> None:
        """Say that these were all bytes, and that readers may have them."""
        self._ended = True
        self._tell()

    def fail(self, failure: MatrixError) -> None:
        """Say that the rest is never going to come."""
        if not self._ended:
            self._failure = failure
            self._tell()

    def hide_from(self, homeservers: frozenset[str]) -> None:
        """Break off the readers of some homeservers."""
        self.hidden_from |= homeservers
        self._tell()

    def seen_by(self, viewer: str, rest: Rest) -> "TeeView":
        """Let a reader in, as one of a homeserver's users; `rest` sends what the tee has no more."""
        self.readers += 1
        return TeeView(self, viewer, rest)

    def drop(self) -> None:
        """Free the memory; readers get the rest from S3."""
        self._pieces.clear()
        self._start = self._end
        if self._reserved is not None:
            self._reserved.end()
        self._tell()

    async def send_to(self, sink: Sink, viewer: str, rest: Rest) -> None:
        """Push every byte; raises what ended the fetch, NotFoundError what is hidden, or the sink's own errors."""
        try:
            await self._send_to(sink, viewer, rest)
        finally:
            self.readers -= 1
            if self.on_left is not None:
                self.on_left()

    async def _send_to(self, sink: Sink, viewer: str, rest: Rest) -> None:
        offset, paced = 0, sink if isinstance(sink, BackpressureSink) else None
        while True:
            if viewer in self.hidden_from:
                raise NotFoundError("media not found")
            if offset < self._start:
                await rest(offset, sink)
                return
            changed = self._changed
            if offset < self._end and paced is not None:
                taken = _offer(paced, *self._at(offset))
                offset += taken
                if not taken:
                    await paced.ready()
            elif offset < self._end:
                offset += await _write(sink, *self._at(offset))
            elif self._failure is not None:
                raise self._failure.with_traceback(None)
            elif self._ended:
                return
            else:
                await changed.wait()

    def _at(self, offset: int) -> tuple[bytes, int]:
        """Find the piece that an offset lies in, and where in it."""
        position = self._start
        for piece in self._pieces:
            if offset < position + len(piece):
                return piece, offset - position
            position += len(piece)
        raise ValueError("there is nothing at this offset")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class TeeView:
    """A tee as the users of one homeserver see it."""

    def __init__(self, tee: Tee, viewer: str, rest: Rest) -> None:
        self._tee = tee
        self._viewer = viewer
        self._rest = rest

    @property
    def media(self) -> Media:
        """What the row is going to be."""
        return self._tee.media

    @property
    def size_bytes(self) -> int | None:
        """How many bytes come; None while that is not certain."""
        return self._tee.size_bytes

    async def send_to(self, sink: Sink) -> None:
        """Push every byte, as `Tee.send_to` does."""
        await self._tee.send_to(sink, self._viewer, self._rest)


async def _write(sink: Sink, piece: bytes, begin: int) -> int:
    await sink.write(piece[begin:])
    return len(piece) - begin


def _offer(sink: BackpressureSink, piece: bytes, begin: int) -> int:
    return sink.offer(memoryview(piece)[begin:])
