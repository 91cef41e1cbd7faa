"""Writes rows to the database of matrix-media-repo."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from mediarepo.exporters.destination import ExportError
from mediarepo.exporters.synapse.database import Change, Delete, Insert, Value, WritableDatabase
from mediarepo.importers.errors import SourceError
from mediarepo.importers.matrix_media_repo.tables import MatrixMediaRepoTables
from mediarepo.importers.readers.coercion import Row, key_text
from mediarepo.importers.readers.source_database import select
from mediarepo.model.exports import ExportMedia
from mediarepo.model.import_source import SourceMedia
from mediarepo.model.media import MediaState

MEDIA, ANNOUNCED = "media", "expiring_media"
_NAMELESS_REMOTE = "download"
_RANDOM_CHARS, _SNOWFLAKE_CHARS = 40, 19
_SUFFIX = "idv2fmt"


@dataclass(frozen=True, slots=True)
class ContentPlace:
    """The datastore that has the content, and the location in it."""

    datastore_id: str
    location: str


def object_name(media: ExportMedia) -> str:
    """Return a location in matrix-media-repo's layout, made from the hash, so that it is found again after a crash."""
    seed = media.sha256 or str(media.mxc).encode()
    digest = hashlib.sha256(b"matrix-media-repo" + seed).hexdigest()
    snowflake = 10 ** (_SNOWFLAKE_CHARS - 1) + int(digest[_RANDOM_CHARS:], 16) % (9 * 10 ** (_SNOWFLAKE_CHARS - 1))
    return f"{digest[:_RANDOM_CHARS]}{snowflake}{_SUFFIX}"


def changes_for(media: ExportMedia, sha256: bytes | None, place: ContentPlace, *, fill: bool) -> list[Change]:
    """Return the rows of the media, its own row first; `fill` when its id is reserved there."""
    address: dict[str, Value] = {"origin": media.mxc.server_name, "media_id": media.mxc.media_id}
    if media.state is MediaState.PENDING:
        expires_ts = media.created_ts if media.expires_ts is None else media.expires_ts
        return [Insert(ANNOUNCED, {**address, "user_id": media.uploaded_by or "", "expires_ts": expires_ts})]
    digest = "" if sha256 is None else sha256.hex()
    row: dict[str, Value] = {
        **address,
        "upload_name": media.upload_name or (_NAMELESS_REMOTE if media.remote else ""),
        "content_type": media.content_type,
        "user_id": media.uploaded_by or "",
        "sha256_hash": digest,
        "size_bytes": media.size_bytes or 0,
        "creation_ts": media.created_ts,
        "quarantined": media.quarantined_by is not None,
        "datastore_id": place.datastore_id,
        "location": place.location,
    }
    changes: list[Change] = [Insert(MEDIA, row)]
    if media.protected:
        changes.append(Insert("media_attributes", {**address, "purpose": "pinned"}))
    if media.authenticated:
        condition = {"condition_type": "io.t2bot.requires_authentication", "condition_value": "true"}
        changes.append(Insert("restricted_media", {**address, **condition}))
    if digest:
        last_access_ts = media.created_ts if media.last_access_ts is None else media.last_access_ts
        changes.append(Insert("last_access", {"sha256_hash": digest, "last_access_ts": last_access_ts}))
    return [*changes, Delete(ANNOUNCED, address)] if fill else changes


_NEEDED = {
    "media": {"origin", "media_id", "sha256_hash", "datastore_id", "location", "quarantined"},
    "last_access": {"sha256_hash"},
    "media_attributes": {"purpose"},
    "restricted_media": {"condition_type"},
    "expiring_media": {"expires_ts"},
    "reserved_media": {"media_id"},
}


class MatrixMediaRepoRowWriter:
    """Reads and adds rows, one transaction for each piece of media; matrix-media-repo may be running."""

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
        """Read the row of the media, or of its reserved id; None if there is neither.

        Raises ExportError when it cannot be read.
        """
        try:
            return await self._tables.get(media.mxc.server_name, media.mxc.media_id)
        except SourceError as exc:
            raise ExportError(str(exc)) from exc

    async def is_purged(self, media: ExportMedia) -> bool:
        """Return whether an admin there has purged media of this address."""
        query = select("reserved_media", {"one": "1"}, "origin = {0} AND media_id = {1}")
        return bool(await self._rows(query, media.mxc.server_name, media.mxc.media_id))

    async def places_of(self, sha256: bytes) -> list[ContentPlace]:
        """Return the places of the same content, those of quarantined media left out."""
        columns = {"datastore_id": "datastore_id", "location": "location"}
        found = await self._rows(select("media", columns, "sha256_hash = {0} AND NOT quarantined"), sha256.hex())
        places = [ContentPlace(key_text(row["datastore_id"]), key_text(row["location"])) for row in found]
        return list(dict.fromkeys(places))

    async def add(self, changes: Sequence[Change]) -> None:
        """Apply all changes or none. Raises RowAppearedError when the first one finds an existing row."""
        await self._database.change(changes)

    async def _rows(self, query: str, *arguments: str) -> list[Row]:
        try:
            return await self._database.rows(query, *arguments)
        except SourceError as exc:
            raise ExportError(str(exc)) from exc
