"""A request's body, as it arrives."""

from typing import Protocol


class Body(Protocol):
    """Gives the bytes of an upload in order."""

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end. BadRequestError when the client breaks off."""
        ...
