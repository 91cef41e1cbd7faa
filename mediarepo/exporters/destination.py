"""The interface of export destinations, and their errors."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


class ExportError(Exception):
    """The export cannot begin or go on; the message tells the operator why."""


class RowRefusedError(Exception):
    """The database does not take this one row; the message tells why."""


class RowAppearedError(Exception):
    """Somebody else wrote the row meanwhile; looking again tells what it says."""


@dataclass(frozen=True, slots=True)
class FoundBytes:
    """What lies at a path already."""

    size_bytes: int
    sha256: bytes


class Writing(Protocol):
    """Bytes on their way to a path, at which nothing is seen before `finish`; without it they are dropped."""

    async def write(self, data: bytes, /) -> None:
        """Take one piece."""
        ...

    async def finish(self) -> None:
        """Let the bytes appear, durably."""
        ...


class BytesPlace(Protocol):
    """A folder, bucket or archive; open it before use, with `async with`. What is there is never overwritten."""

    async def find(self, path: str) -> FoundBytes | None:
        """Read what lies at a path."""
        ...

    def writing(self, path: str, *, size_bytes: int) -> AbstractAsyncContextManager[Writing]:
        """Begin to write `size_bytes` bytes to a path at which nothing lies."""
        ...
