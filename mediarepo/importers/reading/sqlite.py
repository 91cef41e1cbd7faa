"""A SQLite database of a server that may be running."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from mediarepo.importers.errors import SourceError
from mediarepo.importers.reading.databases import Dialect, Selection, key_name, render
from mediarepo.importers.reading.sqlite_files import SqliteFile
from mediarepo.importers.reading.texts import Row, key_text

_PAGE = 10_000


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
        self._file = SqliteFile(path)
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        """Close the file."""
        async with self._lock:
            await asyncio.to_thread(self._file.close)

    @property
    def warnings(self) -> list[str]:
        """What an operator should know of how the file is read."""
        return self._file.warnings

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

        def question(connection: sqlite3.Connection) -> list[Row]:
            return [dict(row) for row in connection.execute(query, values)]

        try:
            return self._file.ask(question)
        except sqlite3.Error as exc:
            raise SourceError(f"{self.words} cannot be read: {exc}") from exc


def _narrowed(selection: Selection, textual: str) -> Selection:
    where = f"({selection.where}){textual}"
    return Selection(selection.table, selection.columns, selection.keys, where, selection.arguments)
