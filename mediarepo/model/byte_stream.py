"""Byte ranges, and sinks that bytes are pushed to."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`size_bytes` bytes from `offset` on; never empty, never negative."""

    offset: int
    size_bytes: int

    @property
    def last(self) -> int:
        """The offset of the last byte, as HTTP counts (inclusive)."""
        return self.offset + self.size_bytes - 1


class Sink(Protocol):
    """Consumes bytes in order; `write` returns when it is ready for more (backpressure)."""

    async def write(self, data: bytes, /) -> None:
        """Write one piece. Raises ConnectionError when the peer is gone."""
        ...


@runtime_checkable
class BackpressureSink(Sink, Protocol):
    """A sink that takes what it can at once, so that no bytes are buffered for a slow client."""

    def offer(self, data: memoryview, /) -> int:
        """Take as many bytes as fit now, maybe none; returns how many. Raises ConnectionError when the peer is gone."""
        ...

    async def ready(self, timeout_s: float | None = None, /) -> bool:
        """Wait until it takes bytes again; False after `timeout_s`, or when woken.

        Raises ConnectionError, without a timeout, when that takes too long.
        """
        ...

    def take_in_pieces(self, piece_bytes: int | None, /) -> None:
        """Be ready only when nearly all bytes were sent, then for `piece_bytes`; None: whenever there is room."""
        ...

    def wake(self) -> None:
        """Make a waiting `ready` return False."""
        ...
