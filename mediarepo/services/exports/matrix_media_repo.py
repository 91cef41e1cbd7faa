"""Exports to a matrix-media-repo, one item at a time: bytes first, then the row; nothing is overwritten."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from mediarepo.db.exports import ExportTable
from mediarepo.exporters.destination import BytesPlace, RowAppearedError
from mediarepo.exporters.matrix_media_repo import ContentPlace, MatrixMediaRepoRowWriter, changes_for, object_name
from mediarepo.model.exports import ExportMedia, ExportOutcome, ExportResult, ExportSelection
from mediarepo.model.media import Blob, MediaState
from mediarepo.services.exports.content_transfer import ITEM_ERRORS, Contents, failed_result, map_in_order
from mediarepo.services.exports.synapse import compared
from mediarepo.storage.errors import ObjectMissingError


@dataclass(frozen=True, slots=True)
class Datastore:
    """Where new content goes: a folder, or a bucket whose keys get a slash after `prefix_length` characters."""

    datastore_id: str
    is_folder: bool
    prefix_length: int = 0

    def place_of(self, media: ExportMedia) -> ContentPlace:
        """Return the place of content, always the same one."""
        name = object_name(media)
        if self.is_folder:
            name = f"{name[:2]}/{name[2:4]}/{name[4:]}"
        elif self.prefix_length:
            name = f"{name[: self.prefix_length]}/{name[self.prefix_length :]}"
        return ContentPlace(self.datastore_id, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixMediaRepoExport:
    """Writes our media where a matrix-media-repo finds them; `places` are its datastores by id."""

    table: ExportTable
    contents: Contents
    places: Mapping[str, BytesPlace]
    local: Datastore
    remote: Datastore
    recording: MatrixMediaRepoRowWriter
    server_names: frozenset[str]
    locks: "WeakValueDictionary[ContentPlace, asyncio.Lock]" = field(default_factory=WeakValueDictionary)

    async def run(self, selection: ExportSelection, *, jobs: int) -> AsyncGenerator[ExportResult, None]:
        """Export everything selected; yields each result."""
        async for result in map_in_order(self.table.walk(selection), self._result, jobs=jobs):
            yield result

    async def _result(self, media: ExportMedia) -> ExportResult:
        if media.state is MediaState.TRASHED:
            return ExportResult(media, ExportOutcome.WITHOUT_CONTENT, "it is in the trash")
        if complaint := self._complaint(media):
            return ExportResult(media, ExportOutcome.REFUSED, complaint)
        try:
            return await self._export_twice(media)
        except ITEM_ERRORS as exc:
            return failed_result(media, exc)

    def _complaint(self, media: ExportMedia) -> str | None:
        is_theirs = media.mxc.server_name in self.server_names
        if media.remote and is_theirs:
            return "it has one of its homeservers' names, and was not uploaded here"
        if not media.remote and not is_theirs:
            return f"{media.mxc.server_name} is none of its homeservers"
        return None

    async def _export_twice(self, media: ExportMedia) -> ExportResult:
        """Look again when somebody else wrote the row meanwhile."""
        try:
            return await self._export(media)
        except RowAppearedError:
            return await self._export(media)

    async def _export(self, media: ExportMedia) -> ExportResult:
        row = await self.recording.find(media)
        fill = row is not None and row.pending and media.state is not MediaState.PENDING
        if row is not None and not (fill and row.user_id == media.uploaded_by):
            return compared(media, row)
        if row is None and await self.recording.is_purged(media):
            return ExportResult(media, ExportOutcome.CONFLICT, "it was purged there, and is still here")
        own = (self.remote if media.remote else self.local).place_of(media)
        if media.blob is None or media.state is not MediaState.READY:
            return await self._without_content(media, own, fill=fill)
        lock = self.locks.setdefault(own, asyncio.Lock())
        async with lock:
            try:
                placed = await self._placed(media, media.blob, own)
            except ObjectMissingError:
                return await self._without_content(media, own, fill=fill)
            if placed is None:
                return ExportResult(media, ExportOutcome.CONFLICT, f"other bytes lie at {own.location}")
            place, sha256, written = placed
            await self.recording.add(changes_for(media, sha256, place, fill=fill))
        return ExportResult(media, ExportOutcome.EXPORTED, path=place.location, sha256=sha256, written_bytes=written)

    async def _placed(
        self, media: ExportMedia, blob: Blob, own: ContentPlace
    ) -> tuple[ContentPlace, bytes, int] | None:
        """Make sure that content lies somewhere; gives where, its hash and what was written; None: other bytes do."""
        known = [] if media.sha256 is None else await self.recording.places_of(media.sha256)
        for place in [*(one for one in known if one.datastore_id in self.places), own]:
            found = await self.places[place.datastore_id].find(place.location)
            if found is None:
                continue
            sha256 = media.sha256
            if sha256 is None and found.size_bytes == blob.size_bytes:
                sha256 = await self.contents.send(blob, None, None)
            if sha256 == found.sha256:
                return place, found.sha256, 0
            if place == own:
                return None
        async with self.places[own.datastore_id].writing(own.location, size_bytes=blob.size_bytes) as writing:
            sha256 = await self.contents.send(blob, media.sha256, writing)
            await writing.finish()
        return own, sha256, blob.size_bytes

    async def _without_content(self, media: ExportMedia, own: ContentPlace, *, fill: bool) -> ExportResult:
        """Hand on announced ids, and what is hidden: its hash keeps others from uploading it again."""
        pending = media.state is MediaState.PENDING
        if fill or not (pending or media.quarantined_by):
            return ExportResult(media, ExportOutcome.MISSING, "its content is lost")
        await self.recording.add(changes_for(media, media.sha256, own, fill=False)[:1])
        words = "it has not been uploaded yet" if pending else "its content is lost, and it stays quarantined"
        return ExportResult(media, ExportOutcome.WITHOUT_CONTENT, words)
