"""Base class of sources with folders and buckets."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Self

from mediarepo.importers.errors import SourceError
from mediarepo.importers.readers.byte_source import ByteSource, NearbyByteSource
from mediarepo.importers.readers.merge_join import BytePlaces, locate
from mediarepo.importers.readers.source_bucket import BucketAddress, BucketByteSource
from mediarepo.importers.readers.source_database import Database
from mediarepo.model.import_source import (
    PreflightReport,
    Resolution,
    ResolutionState,
    SourceBytes,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
)


def wall_clock_ms() -> int:
    """Return the time, in ms since 1970."""
    return time.time_ns() // 1_000_000


class BaseSource(ABC):
    """A source with byte sources, in the order in which they are searched, and perhaps a database."""

    def __init__(
        self, name: str, database: Database | None, byte_sources: Sequence[ByteSource], *, now_ms: Callable[[], int]
    ) -> None:
        self.name = name
        self.byte_sources = list(byte_sources)
        self._database = database
        self._now_ms = now_ms

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._database is not None:
            await self._database.close()
        for byte_source in self.byte_sources:
            await byte_source.close()

    @property
    def lists(self) -> int:
        """How many LIST requests were made."""
        return sum(byte_source.lists for byte_source in self.byte_sources if isinstance(byte_source, BucketByteSource))

    @property
    def notes(self) -> list[str]:
        """What could not be listed, for the operator."""
        notes = [note for byte_source in self.byte_sources for note in byte_source.notes]
        return notes + list(self._database.warnings if self._database is not None else ())

    @property
    def bucket_addresses(self) -> dict[str, BucketAddress]:
        """The buckets' addresses, by the names of their byte sources."""
        return {
            byte_source.name: byte_source.address
            for byte_source in self.byte_sources
            if isinstance(byte_source, BucketByteSource)
        }

    @abstractmethod
    def place(self, media: SourceMedia) -> BytePlaces:
        """Return the path of a row's bytes."""

    def byte_sources_of(self, _filesystem_id: str | None) -> Sequence[ByteSource]:
        """Return the byte sources that may have a row's bytes; all, unless the row names one."""
        return self.byte_sources

    @abstractmethod
    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over all media in the order of their keys, after `after`."""

    @abstractmethod
    def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over the source's thumbnails of one piece of media."""

    async def all_thumbnails(self) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over all thumbnails, in the order of their media's keys."""
        async with aclosing(self.media()) as walk:
            async for media in walk:
                async with aclosing(self.thumbnails(media)) as thumbnails:
                    async for thumbnail in thumbnails:
                        yield thumbnail

    @abstractmethod
    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Return the possible paths of a thumbnail, likeliest first."""

    async def locate(self, media: SourceMedia) -> Resolution:
        """Look up a row's bytes in every byte source, in order, by path and size."""
        byte_sources = self.byte_sources_of(media.filesystem_id)
        if not byte_sources and not media.pending:
            return Resolution(ResolutionState.UNREADABLE, f"nothing is configured that has {media.filesystem_id!r}")
        return await locate(self.place(media), byte_sources)

    async def locate_thumbnail(self, thumbnail: SourceThumbnail) -> Resolution:
        """Look up a thumbnail at each of its paths; neighbouring lookups share listings."""
        media = SourceMedia(
            server_name=thumbnail.server_name,
            media_id=thumbnail.media_id,
            kind=thumbnail.kind,
            size_bytes=thumbnail.size_bytes,
        )
        byte_sources = self.byte_sources_of(thumbnail.filesystem_id)
        near = [NearbyByteSource(byte_source) for byte_source in byte_sources]
        paths = self.thumbnail_paths(thumbnail)
        resolutions = [await locate(BytePlaces(media, path), near, everywhere=True) for path in paths]
        if not resolutions:
            return Resolution(ResolutionState.UNSAFE, "the thumbnail's row has no valid path")
        found = [one for one in resolutions if one.state is ResolutionState.FOUND]
        seen = [one for one in resolutions if one.state is not ResolutionState.MISSING]
        return (found or seen or resolutions)[0]

    async def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read bytes, in pieces, from the byte source that has them."""
        async for piece in self._shelf(found).open(found):
            yield piece

    async def read(self, found: SourceBytes) -> bytes:
        """Read bytes at once from the byte source that has them."""
        return await self._shelf(found).read(found)

    def _shelf(self, found: SourceBytes) -> ByteSource:
        for byte_source in self.byte_sources:
            if byte_source.name == found.byte_source:
                return byte_source
        raise SourceError(f"there is no byte source {found.byte_source}")


async def check_byte_sources(byte_sources: Sequence[ByteSource], findings: PreflightReport) -> None:
    """Report the byte sources, and which of them cannot be read."""
    for byte_source in byte_sources:
        problem = await byte_source.check()
        if problem is None:
            findings.facts.append(f"{byte_source.name}: {byte_source.words}")
        else:
            findings.problems.append(f"{byte_source.name}: {problem}")


async def probe_originals(
    source: BaseSource, rows: AsyncGenerator[SourceMedia, None], findings: PreflightReport, *, count: int
) -> None:
    """Look up the bytes of a few rows: when none are found, folders and database do not belong together."""
    tried = found = 0
    words = ""
    async with aclosing(rows):
        async for media in rows:
            if media.pending or media.block_only:
                continue
            if tried == count:
                break
            tried += 1
            resolution = await source.locate(media)
            found += resolution.state is ResolutionState.FOUND
            if resolution.state is not ResolutionState.FOUND:
                words = words or f"{media.media_id}: {resolution.words}"
    if tried and not found:
        findings.problems.append(f"none of {tried} originals was found ({words}): do the folders belong to it?")
    elif tried:
        findings.facts.append(f"{found} of {tried} originals that were tried are there")
