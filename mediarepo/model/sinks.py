"""Where bytes are pushed to."""

from typing import Protocol


class Sink(Protocol):
    """Takes bytes in order; `write` returns when it is ready for more (backpressure)."""

    async def write(self, data: bytes, /) -> None:
        """Take one piece; raises ConnectionError when the far end is gone."""
        ...
