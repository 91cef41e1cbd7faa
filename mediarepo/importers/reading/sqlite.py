"""A SQLite database of a server that may be running."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from urllib.parse import quote

from mediarepo.importers.errors import SourceError
from mediarepo.importers.reading.databases import Dialect, Selection, key_name, render
from mediarepo.importers.reading.texts import Row, as_text, key_text

_PAGE = 10_000
_BUSY_TIMEOUT_S = 30
_HEADER_BYTES = 100
_MODE_OFFSET, _WAL_VERSION = 18, 2


class SqliteDialect:
    """SQLite compares texts by their bytes unless told otherwise."""

    def text(self, number: int) -> str:
        """Refer to an argument that was given as bytes, so that texts which are no UTF-8 find their rows too."""
        return f"CAST(?{number} AS TEXT)"

    def bytewise(self, expression: str) -> str:
        """Ask for the comparison of bytes."""
        return f"{expression} COLLATE BINARY"


class SqliteDatabase:
    """Reads pages with short transactions, so that the server's log can be folded into its database meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dialect: Dialect = SqliteDialect()
        self.words = f"the SQLite database {path}"
        self.warnings: list[str] = []
        self._connection: sqlite3.Connection | None = None
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        """Close the file."""
        async with self._lock:
            if self._connection is not None:
                await asyncio.to_thread(self._connection.close)
                self._connection = None

    async def columns(self, table: str) -> frozenset[str]:
        """Name a table's columns; none when there is no such table."""
        found = await self._ask(f"PRAGMA table_info({table})", ())
        return frozenset(str(row["name"]) for row in found)

    async def stream(self, selection: Selection, after: Sequence[str] | None = None) -> AsyncGenerator[Row, None]:
        """Walk through rows, a page at a time."""
        keys = range(len(selection.keys))
        textual = "".join(f" AND typeof({expression}) = 'text'" for expression in selection.keys)
        while True:
            query = render(_narrowed(selection, textual), self.dialect, after=after) + f" LIMIT {_PAGE}"
            page = await self._ask(query, (*selection.arguments, *(after or ())))
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            after = [key_text(page[-1][key_name(number)]) for number in keys]

    async def rows(self, query: str, *arguments: str) -> list[Row]:
        """Ask for a few rows."""
        return await self._ask(query.format(*(self.dialect.text(n + 1) for n in range(len(arguments)))), arguments)

    async def _ask(self, query: str, arguments: Sequence[str]) -> list[Row]:
        async with self._lock:
            return await asyncio.to_thread(self._ask_now, query, arguments)

    def _ask_now(self, query: str, arguments: Sequence[str]) -> list[Row]:
        values = [argument.encode(errors="surrogateescape") for argument in arguments]
        try:
            rows: list[Row] = [dict(row) for row in self._opened().execute(query, values)]
            if self._is_stale():  # its server may have changed pages under our eyes
                rows = [dict(row) for row in self._opened().execute(query, values)]
        except sqlite3.Error as exc:
            raise SourceError(f"{self.words} cannot be read: {exc}") from exc
        return rows

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_stale():
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection, self.warnings = open_read_only(self.path)
        return self._connection

    def _is_stale(self) -> bool:
        """Say whether somebody has opened a database that was taken for unused."""
        return bool(self.warnings) and log_of(self.path).exists()


def _narrowed(selection: Selection, textual: str) -> Selection:
    where = f"({selection.where}){textual}"
    return Selection(selection.table, selection.columns, selection.keys, where, selection.arguments)


def open_read_only(path: Path) -> tuple[sqlite3.Connection, list[str]]:
    """Open a database beside its running server, or a copy of one; gives warnings too.

    A log that cannot be read for lack of permission must not be ignored. Where there is none, nobody has the database
    open, and it is read as if it never changed: anything else would leave an empty log behind.
    """
    in_wal_mode = _read_header(path)[_MODE_OFFSET] == _WAL_VERSION
    try:
        if not in_wal_mode or log_of(path).exists():
            return _connect(path, "mode=ro"), []
        warning = f"{path} is in WAL mode but has no {log_of(path).name} beside it; if it was copied while its server "
        return _connect(path, "mode=ro&immutable=1"), [warning + "ran, what was written last is not in it"]
    except sqlite3.Error as exc:
        hint = ": run this as the server's user, or read a copy made with sqlite3's .backup" if in_wal_mode else ""
        raise SourceError(f"the SQLite database {path} cannot be read ({exc}){hint}") from exc


def log_of(path: Path) -> Path:
    """Name the write-ahead log, which exists while anybody has the database open."""
    return path.with_name(f"{path.name}-wal")


def _read_header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as exc:
        raise SourceError(f"the SQLite database {path} cannot be read: {exc.strerror}") from exc
    if len(header) < _HEADER_BYTES or not header.startswith(b"SQLite format 3\x00"):
        raise SourceError(f"{path} is not a SQLite database")
    return header


def _connect(path: Path, options: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?{options}"
    connection = sqlite3.connect(
        address, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.text_factory = as_text
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
