"""A stretch of bytes within a larger whole."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """`size_bytes` bytes from `offset` on; never empty, never negative."""

    offset: int
    size_bytes: int

    @property
    def last(self) -> int:
        """The offset of the last byte, as HTTP counts (inclusive)."""
        return self.offset + self.size_bytes - 1
