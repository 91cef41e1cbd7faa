"""The interface of places where a source keeps bytes under relative paths."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from mediarepo.model.import_source import ResolutionState, SourceBytes


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Why a shelf cannot say whether it has bytes, or must not give them out."""

    state: ResolutionState
    words: str


@dataclass(frozen=True, slots=True)
class ListedFile:
    """Bytes met on a walk; `path` is relative to the shelf, `modified_ts` in ms; with `trouble` not readable."""

    path: str
    found: SourceBytes
    modified_ts: int
    trouble: SourceProblem | None = None

    @property
    def order(self) -> bytes:
        """The path as walks order it."""
        return path_order(self.path)


class ByteSource(Protocol):
    """One folder or bucket; `has_costly_looks` says that a look for one path costs as much as listing a thousand."""

    name: str
    words: str
    notes: list[str]
    has_costly_looks: bool

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look for the bytes at a path; None when it is sure that there are none."""
        ...

    async def find_near(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look for the bytes at one of many paths, which are asked for in order; what just came may not be seen."""
        ...

    def walk(self, under: str) -> AsyncGenerator[ListedFile, None]:
        """Walk through everything whose path begins with `under` (up to a slash), in the order of paths as bytes."""
        ...

    def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read bytes of this shelf in small pieces; raises BytesVanishedError when they are not what was found."""
        ...

    async def read(self, found: SourceBytes) -> bytes:
        """Read bytes of this shelf at once; raises BytesVanishedError when they are not what was found."""
        ...

    async def check(self) -> str | None:
        """Say in words why the shelf cannot be read at all; None when it can."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Finder(Protocol):
    """Looks for bytes at a path."""

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look for the bytes at a path; None when there are none."""
        ...


@dataclass(frozen=True, slots=True)
class NearbyByteSource:
    """A shelf that is asked for neighbours."""

    byte_source: ByteSource

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look for the bytes at a path."""
        return await self.byte_source.find_near(path)


def path_order(path: str) -> bytes:
    """Encode a path as it is ordered."""
    return path.encode(errors="surrogateescape")
