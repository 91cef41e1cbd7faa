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
    """Takes bytes in order; `write` returns when it is ready for more (backpressure)."""

    async def write(self, data: bytes, /) -> None:
        """Take one piece; raises ConnectionError when the far end is gone."""
        ...


@runtime_checkable
class BackpressureSink(Sink, Protocol):
    """A sink that says how much it takes at once, so that nobody need hold bytes for one that is slow."""

    def offer(self, data: memoryview, /) -> int:
        """Take as many bytes as fit now, maybe none; raises ConnectionError when the far end is gone."""
        ...

    async def ready(self, timeout_s: float | None = None, /) -> bool:
        """Wait until it takes bytes again; False after `timeout_s`, or when woken.

        Without a timeout, ConnectionError is raised when that takes too long.
        """
        ...

    def take_in_pieces(self, piece_bytes: int | None, /) -> None:
        """Be ready only when what was taken has nearly left, then for so many bytes; None: whenever there is room."""
        ...

    def wake(self) -> None:
        """Let a `ready` that waits return False."""
        ...
