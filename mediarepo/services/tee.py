"""Content that is passed on to clients while it is being stored.

Storing sets the pace, never a client: bytes stay in memory for a moment, and whoever falls behind gets the rest from
S3 once it is stored.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from mediarepo.errors import MatrixError, NotFoundError
from mediarepo.model.byte_stream import Sink
from mediarepo.model.media import Media

Rest = Callable[[int, Sink, str], Awaitable[None]]
"""Sends what is left from an offset on, from S3, once everything is stored, if this homeserver's users may see it."""


_ANNOUNCING_S = 0.05
_ANNOUNCING_WINDOWS = 8
"""How long, and how many windows at most, the first bytes are kept for those who are just being told of them."""


class Tee:
    """Bytes on their way, for any number of readers; `window_bytes` is what is kept of them, None: everything.

    `media` is what the row is going to be; `size_bytes` is None while the length is not known for certain.
    `on_first_bytes` is called once, soon after the first bytes have come: an answer that is broken within its first
    piece has failed by then.
    """

    def __init__(self, media: Media, *, size_bytes: int | None, window_bytes: int | None, rest: Rest) -> None:
        self.media = media
        self.size_bytes = size_bytes
        self._window_bytes = window_bytes
        self.on_first_bytes: Callable[[], None] | None = None
        self._announcing = False
        self._rest = rest
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

    def add(self, piece: bytes) -> None:
        """Take the next bytes; the oldest leave when the window is full."""
        self._pieces.append(piece)
        self._end += len(piece)
        if self.on_first_bytes is not None:
            self._announcing = True
            asyncio.get_running_loop().call_soon(self._announce, self.on_first_bytes)
            self.on_first_bytes = None
        if self._window_bytes is not None:
            window_bytes = self._window_bytes * (_ANNOUNCING_WINDOWS if self._announcing else 1)
            while len(self._pieces) > 1 and self._end - self._start > window_bytes:
                self._start += len(self._pieces.popleft())
        self._tell()

    def _announce(self, call: Callable[[], None]) -> None:
        """Tell of the first bytes, and keep them until those who wait have had their turn."""
        if self._failure is None:
            call()
        asyncio.get_running_loop().call_later(_ANNOUNCING_S, self._announced)

    def _announced(self) -> None:
        self._announcing = False

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

    def seen_by(self, viewer: str) -> "TeeView":
        """Give the tee as the users of one homeserver see it."""
        return TeeView(self, viewer)

    def drop(self) -> None:
        """Free the memory; readers get the rest from S3."""
        self._pieces.clear()
        self._start = self._end
        self._tell()

    async def send_to(self, sink: Sink, viewer: str) -> None:
        """Push every byte; raises what ended the fetch, NotFoundError what is hidden, or the sink's own errors."""
        offset = 0
        while True:
            if viewer in self.hidden_from:
                raise NotFoundError("media not found")
            if offset < self._start:
                await self._rest(offset, sink, viewer)
                return
            changed = self._changed
            if offset < self._end:
                for piece in self._from(offset):
                    await sink.write(piece)
                    offset += len(piece)
            elif self._failure is not None:
                raise self._failure.with_traceback(None)
            elif self._ended:
                return
            else:
                await changed.wait()

    def _from(self, offset: int) -> list[bytes]:
        """Pick the pieces from an offset on; readers always stand where a piece begins."""
        found, position = [], self._start
        for piece in self._pieces:
            if position >= offset:
                found.append(piece)
            position += len(piece)
        return found

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class TeeView:
    """A tee as the users of one homeserver see it."""

    def __init__(self, tee: Tee, viewer: str) -> None:
        self._tee = tee
        self._viewer = viewer

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
        await self._tee.send_to(sink, self._viewer)


class TeeBudget:
    """Memory for all tees together; who gets none is not teed."""

    def __init__(self, limit_bytes: int) -> None:
        self._free = limit_bytes

    def take(self, size_bytes: int) -> bool:
        """Take memory, if there is enough."""
        if size_bytes > self._free:
            return False
        self._free -= size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        """Give memory back."""
        self._free += size_bytes
