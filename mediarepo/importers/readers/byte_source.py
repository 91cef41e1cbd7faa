"""The interface of places where a source keeps bytes under relative paths."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from mediarepo.model.import_source import ResolutionState, SourceBytes


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Why a byte source cannot tell whether it has bytes, or must not serve them."""

    state: ResolutionState
    words: str


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A listed file; `path` is relative to the byte source, `modified_ts` in ms; with `trouble` not readable."""

    path: str
    found: SourceBytes
    modified_ts: int
    trouble: SourceProblem | None = None

    @property
    def order(self) -> bytes:
        """The path as bytes, which listings are sorted by."""
        return path_order(self.path)


class ByteSource(Protocol):
    """One folder or bucket; `has_costly_looks` when one lookup costs as much as listing a thousand."""

    name: str
    words: str
    notes: list[str]
    has_costly_looks: bool

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up the bytes at a path; None when there are certainly none."""
        ...

    async def find_near(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up one of many paths requested in order; files created just now may be missed."""
        ...

    def walk(self, under: str) -> AsyncGenerator[ListedFile, None]:
        """Iterate over everything under a folder, in the order of paths as bytes."""
        ...

    def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read bytes of this source in pieces. Raises BytesVanishedError when they are not what was found."""
        ...

    async def read(self, found: SourceBytes) -> bytes:
        """Read bytes of this source at once. Raises BytesVanishedError when they are not what was found."""
        ...

    async def check(self) -> str | None:
        """Return why the source cannot be read at all; None when it can."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Finder(Protocol):
    """Looks up bytes by path."""

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up the bytes at a path; None when there are none."""
        ...


@dataclass(frozen=True, slots=True)
class NearbyByteSource:
    """A byte source for many neighbouring paths."""

    byte_source: ByteSource

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up the bytes at a path."""
        return await self.byte_source.find_near(path)


def path_order(path: str) -> bytes:
    """Return a path as the bytes it is sorted by."""
    return path.encode(errors="surrogateescape")
