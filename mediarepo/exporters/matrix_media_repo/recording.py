"""The database of matrix-media-repo, as rows of media are added to it."""

from collections.abc import Collection, Sequence
from typing import Self

from mediarepo.exporters.errors import ExportError
from mediarepo.exporters.matrix_media_repo.rows import ContentPlace
from mediarepo.exporters.synapse.changes import Change
from mediarepo.exporters.synapse.databases import WritableDatabase
from mediarepo.importers.errors import SourceError
from mediarepo.importers.matrix_media_repo.tables import MatrixMediaRepoTables
from mediarepo.importers.reading.databases import select
from mediarepo.importers.reading.texts import Row, key_text
from mediarepo.model.exports import ExportMedia
from mediarepo.model.imports import SourceMedia

_NEEDED = {
    "media": {"origin", "media_id", "sha256_hash", "datastore_id", "location", "quarantined"},
    "last_access": {"sha256_hash"},
    "media_attributes": {"purpose"},
    "restricted_media": {"condition_type"},
    "expiring_media": {"expires_ts"},
    "reserved_media": {"media_id"},
}


class MatrixMediaRepoRecording:
    """Reads and adds rows, in a transaction for each piece of media; the program may be running."""

    def __init__(self, database: WritableDatabase, server_names: Collection[str]) -> None:
        self._database = database
        self._tables = MatrixMediaRepoTables(database, server_names=server_names)

    async def __aenter__(self) -> Self:
        try:
            lacking = [table for table, needed in _NEEDED.items() if not needed <= await self._database.columns(table)]
        except SourceError as exc:
            raise ExportError(str(exc)) from exc
        if lacking:
            words = f"{self._database.words} lacks {', '.join(lacking)}, or we may not use them"
            raise ExportError(f"{words}: start matrix-media-repo 1.3.5 or later once")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    async def find(self, media: ExportMedia) -> SourceMedia | None:
        """Read the row of media, or what announces them, if there is any."""
        try:
            return await self._tables.get(media.mxc.server_name, media.mxc.media_id)
        except SourceError as exc:
            raise ExportError(str(exc)) from exc

    async def is_purged(self, media: ExportMedia) -> bool:
        """Say whether an admin there has removed media of this address."""
        query = select("reserved_media", {"one": "1"}, "origin = {0} AND media_id = {1}")
        return bool(await self._rows(query, media.mxc.server_name, media.mxc.media_id))

    async def places_of(self, sha256: bytes) -> list[ContentPlace]:
        """Say where rows of content that nobody has hidden say it lies."""
        columns = {"datastore_id": "datastore_id", "location": "location"}
        found = await self._rows(select("media", columns, "sha256_hash = {0} AND NOT quarantined"), sha256.hex())
        places = [ContentPlace(key_text(row["datastore_id"]), key_text(row["location"])) for row in found]
        return list(dict.fromkeys(places))

    async def add(self, changes: Sequence[Change]) -> None:
        """Make all changes or none; RowAppearedError when the first one finds its row there."""
        await self._database.change(changes)

    async def _rows(self, query: str, *arguments: str) -> list[Row]:
        try:
            return await self._database.rows(query, *arguments)
        except SourceError as exc:
            raise ExportError(str(exc)) from exc
