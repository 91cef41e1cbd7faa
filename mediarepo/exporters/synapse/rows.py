"""Rows of Synapse's media tables, written to its database or to a file of statements."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol, Self

from mediarepo.exporters.destination import ExportError
from mediarepo.exporters.synapse.database import Change, Fill, Insert, Value, WritableDatabase, literal, render
from mediarepo.importers.errors import SourceError
from mediarepo.importers.synapse.tables import (
    ALL_COLUMNS,
    LOCAL,
    LOCAL_THUMBNAILS,
    REMOTE,
    REMOTE_THUMBNAILS,
    TABLES,
    Tables,
)
from mediarepo.model.exports import ExportMedia
from mediarepo.model.import_source import MediaKind, SourceMedia
from mediarepo.model.media import MediaState

TOO_LONG = 2**31
"""Lengths are 32-bit integers in Synapse's tables."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FILESYSTEM_ID_CHARS = 24
_THUMBNAIL_TYPES = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/webp": "image/jpeg",
    "image/gif": "image/png",
    "image/png": "image/png",
}
_THUMBNAILS = ((32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"), (641, 481, "scale"), (803, 601, "scale"))
"""Thumbnails that Synapse shall make when they are asked for.

It makes anew those of which it has a row and no file. Their length is not known before, and Synapse cannot compare a
thumbnail of known length with one of unknown length; it does so only when both are equally near to the size asked for.
Hence sizes of which no two are equally near to what clients ask for.
"""


def source_media(media: ExportMedia) -> SourceMedia:
    """Return our media as a row of Synapse's; a remote file's name is made from its mxc."""
    kind = MediaKind.REMOTE if media.remote else MediaKind.LOCAL
    described = SourceMedia(server_name=media.mxc.server_name, media_id=media.mxc.media_id, kind=kind)
    return replace(described, filesystem_id=_filesystem_id(media)) if media.remote else described


def _filesystem_id(media: ExportMedia) -> str:
    digest = hashlib.sha256(str(media.mxc).encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:_FILESYSTEM_ID_CHARS])


def changes_for(
    media: ExportMedia, sha256: bytes | None, columns: Mapping[str, frozenset[str]], *, fill: bool
) -> list[Change]:
    """Return the rows of the media, its own row first; columns that the schema lacks are left out."""
    table = REMOTE if media.remote else LOCAL
    values = {name: value for name, value in _values(media, sha256).items() if name in columns[table]}
    if fill:
        kept = ("media_type", "media_length", "upload_name", "quarantined_by", "safe_from_quarantine", "sha256")
        filled = {name: value for name, value in values.items() if name in kept}
        first: Change = Fill(table, filled, media.mxc.media_id)
    else:
        first = Insert(table, values)
    return [first, *_thumbnails(media, columns)]


def _values(media: ExportMedia, sha256: bytes | None) -> dict[str, Value]:
    pending = media.state is MediaState.PENDING
    shared: dict[str, Value] = {
        "media_id": media.mxc.media_id,
        "media_type": None if pending else media.content_type,
        "media_length": None if pending else media.size_bytes or 0,
        "created_ts": media.created_ts,
        "upload_name": media.upload_name,
        "quarantined_by": media.quarantined_by,
        "authenticated": media.authenticated,
        "sha256": None if sha256 is None else sha256.hex(),
    }
    if media.remote:
        last_access_ts = media.created_ts if media.last_access_ts is None else media.last_access_ts
        place: dict[str, Value] = {"media_origin": media.mxc.server_name, "filesystem_id": _filesystem_id(media)}
        return {**place, **shared, "last_access_ts": last_access_ts}
    own: dict[str, Value] = {"user_id": media.uploaded_by, "safe_from_quarantine": media.protected}
    return {**shared, **own, "last_access_ts": media.last_access_ts}


def _thumbnails(media: ExportMedia, columns: Mapping[str, frozenset[str]]) -> list[Insert]:
    content_type = _THUMBNAIL_TYPES.get(media.content_type.partition(";")[0].strip().lower())
    if content_type is None or media.state is not MediaState.READY or not media.size_bytes:
        return []
    table = REMOTE_THUMBNAILS if media.remote else LOCAL_THUMBNAILS
    of: dict[str, Value] = {"media_id": media.mxc.media_id}
    if media.remote:
        of = {"media_origin": media.mxc.server_name, **of, "filesystem_id": _filesystem_id(media)}
    rows = [
        {
            **of,
            "thumbnail_width": width,
            "thumbnail_height": height,
            "thumbnail_type": content_type,
            "thumbnail_method": method,
        }
        for width, height, method in _THUMBNAILS
    ]
    return [Insert(table, {name: value for name, value in row.items() if name in columns[table]}) for row in rows]


_THUMBNAIL = ("thumbnail_width", "thumbnail_height", "thumbnail_type", "thumbnail_method")
_EVERY_COLUMN = {table: frozenset((*ALL_COLUMNS, *_THUMBNAIL)) for table in TABLES}


class RowWriter(Protocol):
    """Writes rows; open it with `async with`."""

    columns: Mapping[str, frozenset[str]]

    async def find(self, media: ExportMedia) -> SourceMedia | None:
        """Return the row of the media; None when there is none, or it cannot be read."""
        ...

    async def add(self, changes: Sequence[Change]) -> None:
        """Apply all changes or none. Raises RowAppearedError when the first one finds an existing row."""
        ...


class DatabaseRowWriter:
    """Writes to the database."""

    def __init__(self, database: WritableDatabase, server_name: str) -> None:
        self.columns: Mapping[str, frozenset[str]] = {}
        self._database = database
        self._tables = Tables(database, server_name=server_name, unused_expiration_ms=0)

    async def __aenter__(self) -> Self:
        try:
            self.columns = {table: await self._tables.columns(table) for table in TABLES}
        except SourceError as exc:
            raise ExportError(str(exc)) from exc
        for table in (LOCAL, REMOTE):
            if not {"media_id", "media_length"} <= self.columns[table]:
                raise ExportError(f"{self._database.words} has no table {table} that we may use: start Synapse once")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    async def find(self, media: ExportMedia) -> SourceMedia | None:
        """Read the row of the media; None if there is none. Raises ExportError when the database cannot be read."""
        try:
            return await self._tables.get(media.mxc.server_name, media.mxc.media_id)
        except SourceError as exc:
            raise ExportError(str(exc)) from exc

    async def add(self, changes: Sequence[Change]) -> None:
        """Write rows."""
        await self._database.change(changes)


class SqlFileWriter:
    """Writes an SQL script of one transaction, for schema version 91 or later; the file appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self.columns: Mapping[str, frozenset[str]] = _EVERY_COLUMN
        self._path, self._partial = path, path.with_name(f".{path.name}.partial")
        self._file: IO[str] | None = None

    async def __aenter__(self) -> Self:
        try:
            self._file = await asyncio.to_thread(self._partial.open, "w", encoding="utf-8", newline="\n")
        except OSError as exc:
            raise ExportError(f"{self._path} cannot be written: {exc.strerror}") from exc
        self._file.write("BEGIN;\n")
        return self

    async def __aexit__(self, failure: object, *_: object) -> None:
        if self._file is None:
            return
        if failure is None:
            self._file.write("COMMIT;\n")
        self._file.close()
        if failure is None:
            self._partial.rename(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    async def find(self, media: ExportMedia) -> SourceMedia | None:  # noqa: ARG002 - nothing can be read
        """Return None: a script has no rows to read."""
        return None

    async def add(self, changes: Sequence[Change]) -> None:
        """Write the statements."""
        text = "".join(f"{render(change, literal)};\n" for change in changes)
        if self._file is not None:
            await asyncio.to_thread(self._file.write, text)
