"""Exports to a Synapse, one item at a time: bytes first, then the row; nothing is overwritten."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from mediarepo.db.exports import ExportTable
from mediarepo.exporters.destination import BytesPlace, FoundBytes, RowAppearedError
from mediarepo.exporters.synapse.rows import TOO_LONG, RowWriter, changes_for, source_media
from mediarepo.importers.synapse.paths import file_path
from mediarepo.model.exports import ExportMedia, ExportOutcome, ExportResult, ExportSelection
from mediarepo.model.import_source import SourceMedia
from mediarepo.model.media import Blob, MediaState
from mediarepo.services.exports.content_transfer import ITEM_ERRORS, Contents, failed_result, map_in_order
from mediarepo.storage.errors import ObjectMissingError


@dataclass(frozen=True, slots=True, kw_only=True)
class SynapseExport:
    """Writes our media where a Synapse finds them."""

    table: ExportTable
    contents: Contents
    bytes_place: BytesPlace
    recording: RowWriter
    server_name: str

    async def run(self, selection: ExportSelection, *, jobs: int) -> AsyncGenerator[ExportResult, None]:
        """Export everything selected; yields each result."""
        async for result in map_in_order(self.table.walk(selection), self._result, jobs=jobs):
            yield result

    async def _result(self, media: ExportMedia) -> ExportResult:
        if media.state is MediaState.TRASHED:
            return ExportResult(media, ExportOutcome.WITHOUT_CONTENT, "it is in the trash")
        placed = file_path(source_media(media))
        if complaint := self._complaint(media) or placed.complaint:
            return ExportResult(media, ExportOutcome.REFUSED, complaint)
        try:
            return await self._export_twice(media, placed.path or "")
        except ITEM_ERRORS as exc:
            return failed_result(media, exc)

    async def _export_twice(self, media: ExportMedia, path: str) -> ExportResult:
        """Look again when somebody else wrote the row meanwhile."""
        try:
            return await self._export(media, path)
        except RowAppearedError:
            return await self._export(media, path)

    def _complaint(self, media: ExportMedia) -> str | None:
        if media.remote and media.mxc.server_name == self.server_name:
            return "it has the homeserver's name, and was not uploaded here"
        if media.size_bytes is not None and media.size_bytes >= TOO_LONG:
            return f"it has {media.size_bytes} bytes; Synapse has no media of 2 GiB or more"
        return None

    async def _export(self, media: ExportMedia, path: str) -> ExportResult:
        row = await self.recording.find(media)
        fill = row is not None and row.pending and media.state is not MediaState.PENDING
        if row is not None and not (fill and row.user_id == media.uploaded_by):
            return compared(media, row)
        if media.blob is None or media.state is not MediaState.READY:
            return await self._without_content(media, fill=fill)
        try:
            found = await self.bytes_place.find(path)
            sha256, written = await self._bytes(media, media.blob, path, found)
        except ObjectMissingError:
            return await self._without_content(media, fill=fill)
        if sha256 is None:
            return ExportResult(media, ExportOutcome.CONFLICT, f"other bytes lie at {path}")
        await self.recording.add(changes_for(media, sha256, self.recording.columns, fill=fill))
        return ExportResult(media, ExportOutcome.EXPORTED, path=path, sha256=sha256, written_bytes=written)

    async def _bytes(
        self, media: ExportMedia, blob: Blob, path: str, found: FoundBytes | None
    ) -> tuple[bytes | None, int]:
        """Make sure that the bytes lie there; gives their hash, or None when others do, and how many were written."""
        if found is not None:
            sha256 = media.sha256
            if sha256 is None and found.size_bytes == blob.size_bytes:
                sha256 = await self.contents.send(blob, None, None)
            return (sha256 if sha256 == found.sha256 else None), 0
        async with self.bytes_place.writing(path, size_bytes=blob.size_bytes) as writing:
            sha256 = await self.contents.send(blob, media.sha256, writing)
            await writing.finish()
        return sha256, blob.size_bytes

    async def _without_content(self, media: ExportMedia, *, fill: bool) -> ExportResult:
        """Hand on announced ids, and what is hidden: its hash keeps others from uploading it again."""
        pending = media.state is MediaState.PENDING
        if fill or not (pending or media.quarantined_by):
            return ExportResult(media, ExportOutcome.MISSING, "its content is lost")
        await self.recording.add(changes_for(media, media.sha256, self.recording.columns, fill=False)[:1])
        words = "it has not been uploaded yet" if pending else "its content is lost, and it stays quarantined"
        return ExportResult(media, ExportOutcome.WITHOUT_CONTENT, words)


def compared(media: ExportMedia, row: SourceMedia) -> ExportResult:
    """Compare our media with an existing row."""
    words = None
    if media.state is MediaState.PENDING and not row.pending:
        words = "it has content there, and none here"
    elif row.pending and media.state is not MediaState.PENDING:
        words = f"somebody else reserved it there ({row.user_id})"
    elif None not in (media.size_bytes, row.size_bytes) and media.size_bytes != row.size_bytes:
        words = f"it has {row.size_bytes} bytes there, {media.size_bytes} here"
    elif None not in (media.sha256, row.sha256) and media.sha256 != row.sha256:
        words = "it has another hash there"
    elif media.quarantined_by is not None and row.quarantined_by is None:
        words = (
            f"{media.quarantined_by} has quarantined it here, and it is not quarantined there: quarantine it there too"
        )
    if words is not None:
        return ExportResult(media, ExportOutcome.CONFLICT, words)
    return ExportResult(media, ExportOutcome.ALREADY_THERE)
