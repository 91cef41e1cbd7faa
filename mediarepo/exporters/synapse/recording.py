"""Where rows for Synapse are written: its database, or a file of statements for it."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, Self

from mediarepo.exporters.errors import ExportError
from mediarepo.exporters.synapse.changes import Change, literal, render
from mediarepo.exporters.synapse.databases import WritableDatabase
from mediarepo.importers.errors import SourceError
from mediarepo.importers.synapse.rows import ALL_COLUMNS, LOCAL, REMOTE, TABLES, Tables
from mediarepo.model.exports import ExportMedia
from mediarepo.model.imports import SourceMedia

_THUMBNAIL = ("thumbnail_width", "thumbnail_height", "thumbnail_type", "thumbnail_method")
_EVERY_COLUMN = {table: frozenset((*ALL_COLUMNS, *_THUMBNAIL)) for table in TABLES}


class Recording(Protocol):
    """Takes rows; open it before use, with `async with`."""

    columns: Mapping[str, frozenset[str]]

    async def find(self, media: ExportMedia) -> SourceMedia | None:
        """Read the row of media, if there is one and it can be read."""
        ...

    async def add(self, changes: Sequence[Change]) -> None:
        """Make all changes or none; RowAppearedError when the first one finds its row there."""
        ...


class DatabaseRecording:
    """Writes into the database itself."""

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
        """Read the row of media."""
        try:
            return await self._tables.get(media.mxc.server_name, media.mxc.media_id)
        except SourceError as exc:
            raise ExportError(str(exc)) from exc

    async def add(self, changes: Sequence[Change]) -> None:
        """Write rows."""
        await self._database.change(changes)


class FileRecording:
    """Writes a script of one transaction, for Synapse's schema of version 91 or later; it appears when it is whole."""

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
        """Know of no row."""
        return None

    async def add(self, changes: Sequence[Change]) -> None:
        """Write statements."""
        text = "".join(f"{render(change, literal)};\n" for change in changes)
        if self._file is not None:
            await asyncio.to_thread(self._file.write, text)
