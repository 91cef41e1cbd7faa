"""The interface of import sources."""

from collections.abc import AsyncGenerator
from typing import Protocol, Self

from mediarepo.importers.reading.source_bucket import BucketAddress
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
    """Another media repository, never written to; open it before use, with `async with`.

    Only `preflight` tells of problems as findings; everything else raises SourceError for them. Walks that are left
    early must be closed (contextlib.aclosing).
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
        """How many LIST requests were made until now."""
        ...

    @property
    def notes(self) -> list[str]:
        """What the walks until now could not see, in words."""
        ...

    @property
    def bucket_addresses(self) -> dict[str, BucketAddress]:
        """Where the buckets of ObjectBytes are, by the names of their shelves."""
        ...

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:
        """Look at everything an import would need; never raises for what is wrong with the source.

        So many originals are looked for, one by one.
        """
        ...

    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Walk through all media in the order of their keys, behind `after`."""
        ...

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Get one row as it is now."""
        ...

    async def locate(self, media: SourceMedia) -> Resolution:
        """Look for the bytes of one piece of media."""
        ...

    def located(self) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Walk through all media and all bytes at once, in the order of their places."""
        ...

    def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Walk through the thumbnails that the source has of it."""
        ...

    def all_thumbnails(self) -> AsyncGenerator[SourceThumbnail, None]:
        """Walk through the thumbnails of all media, about in the order of their places."""
        ...

    async def locate_thumbnail(self, thumbnail: SourceThumbnail) -> Resolution:
        """Look for the bytes of a thumbnail; those of many in the order of `all_thumbnails` share listings."""
        ...

    async def read(self, found: SourceBytes) -> bytes:
        """Read bytes that fit into memory at once; raises BytesVanishedError as `open` does."""
        ...

    def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read bytes in small pieces; raises BytesVanishedError when they are not what was found."""
        ...
