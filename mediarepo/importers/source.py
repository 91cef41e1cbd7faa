"""The interface of import sources."""

from collections.abc import AsyncGenerator
from typing import Protocol, Self

from mediarepo.importers.readers.source_bucket import BucketAddress
from mediarepo.model.import_source import (
    SAMPLES,
    PreflightReport,
    Resolution,
    SourceBytes,
    SourceItem,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
    UnclaimedBytes,
)


class Source(Protocol):
    """Another media repository, only read; open it with `async with`.

    Only `preflight` reports problems as findings; everything else raises SourceError. Iterators that are left early
    must be closed (contextlib.aclosing).
    """

    name: str

    async def __aenter__(self) -> Self:
        """Hold nothing that could fail: connections are made when they are needed."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Let go of connections and files."""
        ...

    @property
    def lists(self) -> int:
        """How many LIST requests were made."""
        ...

    @property
    def notes(self) -> list[str]:
        """What could not be listed, for the operator."""
        ...

    @property
    def bucket_addresses(self) -> dict[str, BucketAddress]:
        """The addresses of the buckets of ObjectBytes, by the names of their byte sources."""
        ...

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:
        """Check everything that an import needs; problems of the source are findings, not errors.

        `tries` originals are looked up one by one.
        """
        ...

    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over all media in the order of their keys, after `after`."""
        ...

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now."""
        ...

    async def locate(self, media: SourceMedia) -> Resolution:
        """Look up the bytes of one piece of media."""
        ...

    def located(self) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Iterate over all media and all bytes, in the order of their paths."""
        ...

    def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over the source's thumbnails of one piece of media."""
        ...

    def all_thumbnails(self) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over all thumbnails, roughly in the order of their paths."""
        ...

    async def locate_thumbnail(self, thumbnail: SourceThumbnail) -> Resolution:
        """Look up the bytes of a thumbnail; lookups in the order of `all_thumbnails` share listings."""
        ...

    async def read(self, found: SourceBytes) -> bytes:
        """Read bytes that fit into memory at once. Raises BytesVanishedError as `open` does."""
        ...

    def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read bytes in pieces. Raises BytesVanishedError when they are not what was found."""
        ...
