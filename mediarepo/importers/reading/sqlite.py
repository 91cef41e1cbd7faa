"""A SQLite database of a server that may be running."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote

from mediarepo.importers.errors import SourceError
from mediarepo.importers.reading.databases import Dialect, Selection, key_name, render
from mediarepo.importers.reading.texts import Row, as_text, key_text

_PAGE = 2000
_BUSY_TIMEOUT_S = 30
_HEADER_BYTES = 100
_WAL_VERSION = 2


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

    async def stream(self, selection: Selection, after: Sequence[str] | None = None) -> AsyncIterator[Row]:
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
            if self._connection is None:
                self._connection, self.warnings = open_read_only(self.path)
            return [dict(row) for row in self._connection.execute(query, values)]
        except sqlite3.Error as exc:
            raise SourceError(f"{self.words} cannot be read: {exc}") from exc


def _narrowed(selection: Selection, textual: str) -> Selection:
    where = f"({selection.where}){textual}"
    return Selection(selection.table, selection.columns, selection.keys, where, selection.arguments)


def open_read_only(path: Path) -> tuple[sqlite3.Connection, list[str]]:
    """Open a database beside its running server, or a copy of one; gives warnings too.

    A copy without the write-ahead log beside it lacks what was written last, and nothing tells; a log that cannot be
    read for lack of permission must not be ignored.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as exc:
        raise SourceError(f"the SQLite database {path} cannot be read: {exc.strerror}") from exc
    if not header.startswith(b"SQLite format 3\x00"):
        raise SourceError(f"{path} is not a SQLite database")
    log = path.with_name(f"{path.name}-wal")
    logged = log.exists() and log.stat().st_size > 0
    try:
        connection = _connect(path, "mode=ro")
    except sqlite3.OperationalError as exc:
        if logged:
            raise SourceError(
                f"{path} has a write-ahead log ({log.name}) that cannot be read ({exc}): "
                "run this as the server's user, or make a copy with sqlite3's .backup and read that"
            ) from exc
        connection = _connect(path, "mode=ro&immutable=1")
    if header[18] == _WAL_VERSION and not log.exists():
        words = f"{path} is in WAL mode but has no {log.name} beside it; if it was copied while its server ran, "
        return connection, [words + "it lacks what was written last: copy it with sqlite3's .backup"]
    return connection, []


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
