"""Exports media as an archive of files."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from mediarepo.db.exports import ExportTable
from mediarepo.exporters.files.archive import Archive, Lists, path_of
from mediarepo.model.exports import ExportMedia, ExportOutcome, ExportResult, ExportSelection
from mediarepo.model.media import Blob, MediaState
from mediarepo.services.exports.content_transfer import ITEM_ERRORS, Contents, failed_result, map_in_order

_WITHOUT_CONTENT = {MediaState.PENDING: "it has not been uploaded yet", MediaState.TRASHED: "it is in the trash"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesExport:
    """Writes our media into an archive."""

    table: ExportTable
    contents: Contents
    archive: Archive

    async def run(
        self, selection: ExportSelection, about: Mapping[str, object], *, jobs: int
    ) -> AsyncGenerator[ExportResult, None]:
        """Export everything selected; yields each result. The lists are written last."""
        await self.archive.begin(about)
        with Lists() as lists:
            async with aclosing(map_in_order(self.table.walk(selection), self._result, jobs=jobs)) as results:
                async for result in results:
                    lists.note(result)
                    yield result
            await self.archive.close_with(lists)

    async def _result(self, media: ExportMedia) -> ExportResult:
        if media.state in _WITHOUT_CONTENT:
            return ExportResult(media, ExportOutcome.WITHOUT_CONTENT, _WITHOUT_CONTENT[media.state])
        if media.blob is None or media.state is not MediaState.READY:
            return ExportResult(media, ExportOutcome.MISSING, "its content is lost")
        try:
            return await self._export(media, media.blob)
        except ITEM_ERRORS as exc:
            return failed_result(media, exc)

    async def _export(self, media: ExportMedia, blob: Blob) -> ExportResult:
        path = path_of(media)
        found = await self.archive.find(path)
        if found is not None and found.size_bytes == blob.size_bytes and media.sha256 in {None, found.sha256}:
            return ExportResult(media, ExportOutcome.ALREADY_THERE, path=path, sha256=found.sha256)
        async with self.archive.writing(path, size_bytes=blob.size_bytes) as writing:
            sha256 = await self.contents.send(blob, media.sha256, writing)
            await writing.finish()
        return ExportResult(media, ExportOutcome.EXPORTED, path=path, sha256=sha256, written_bytes=blob.size_bytes)
