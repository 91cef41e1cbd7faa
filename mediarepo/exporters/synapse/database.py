"""Writes to Synapse's database: the changes, and SQLite or Postgres."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

import asyncpg

from mediarepo.exporters.destination import ExportError, RowAppearedError, RowRefusedError
from mediarepo.importers.readers.coercion import as_text
from mediarepo.importers.readers.database_address import DatabaseAddress, SqliteAddress
from mediarepo.importers.readers.source_database import Database
from mediarepo.importers.readers.source_postgres import PostgresDatabase
from mediarepo.importers.readers.source_sqlite import SqliteDatabase, SqliteFile

Value = str | int | bool | None
Refer = Callable[[Value], str]
"""Gives the words by which a statement refers to a value."""


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert a row; no row changes when its key exists."""

    table: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Fill:
    """Fill a media id that was created and has no content yet."""

    table: str
    values: Mapping[str, Value]
    media_id: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the rows that match every value of `where`."""

    table: str
    where: Mapping[str, Value]


Change = Insert | Fill | Delete


class Arguments:
    """Collects values, and returns a placeholder (`sign` and number) for each."""

    def __init__(self, sign: str) -> None:
        self.values: list[Value] = []
        self._sign = sign

    def __call__(self, value: Value) -> str:
        """Refer to one."""
        self.values.append(value)
        return f"{self._sign}{len(self.values)}"


def render(change: Change, refer: Refer) -> str:
    """Return a change as an SQL statement; names are constants of ours, values are placeholders."""
    if isinstance(change, Fill):
        pairs = ", ".join(f"{name} = {refer(value)}" for name, value in change.values.items())
        condition = f"media_id = {refer(change.media_id)} AND media_length IS NULL"
        return f"UPDATE {change.table} SET {pairs} WHERE {condition}"
    if isinstance(change, Delete):
        condition = " AND ".join(f"{name} = {refer(value)}" for name, value in change.where.items())
        return f"DELETE FROM {change.table} WHERE {condition}"
    names, values = ", ".join(change.values), ", ".join(refer(value) for value in change.values.values())
    return f"INSERT INTO {change.table} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING"


def literal(value: Value) -> str:
    """Return a value as an SQL literal for SQLite and Postgres; a text may contain line breaks."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    quoted = value.replace("'", "''")
    return f"'{quoted}'"


_Answer = TypeVar("_Answer")
_BUSY_TIMEOUT_S = 60
_NOTHING = "INSERT 0 0", "UPDATE 0"


class WritableDatabase(Database, Protocol):
    """A database that rows are written to."""

    async def change(self, changes: Sequence[Change]) -> None:
        """Apply all changes or none.

        Raises RowAppearedError when the first one changes no row, RowRefusedError when the database rejects a value.
        """
        ...


def open_for_writing(address: DatabaseAddress) -> WritableDatabase:
    """Return a writer for the database; it connects at first use."""
    if isinstance(address, SqliteAddress):
        return WritableSqlite(address.path)
    settings = {**dict(address.settings), "application_name": "mediarepo export"}
    return WritablePostgres(address.dsn, settings=settings, words=address.words)


class WritablePostgres(PostgresDatabase):
    """Writes to Postgres, one transaction for each piece of media."""

    async def change(self, changes: Sequence[Change]) -> None:
        """Apply all changes or none, in one transaction.

        Raises RowAppearedError when the first change affects no row, RowRefusedError when a constraint or type rejects
        a value, ExportError when the database cannot be written.
        """
        try:
            async with self._connection() as connection, connection.transaction():
                for number, change in enumerate(changes):
                    arguments = Arguments("$")
                    tag = await connection.execute(render(change, arguments), *arguments.values)
                    if number == 0 and tag in _NOTHING:
                        raise RowAppearedError
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as exc:
            raise RowRefusedError(f"{self.words} refuses it: {exc}") from exc
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            raise ExportError(f"{self.words} cannot be written: {exc or type(exc).__name__}") from exc


class _WritableFile(SqliteFile):
    """A file that is written to: what a killed server left in it is rolled back, as by the server itself."""

    def ask(self, question: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Put a question."""
        return question(self.opened())

    def opened(self) -> sqlite3.Connection:
        """Open the file, once."""
        if self._connection is None:
            self._connection = _connect(self.path)
        return self._connection


class WritableSqlite(SqliteDatabase):
    """Writes to SQLite through one connection, one transaction for each piece of media; Synapse may be running."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: _WritableFile = _WritableFile(path)

    async def change(self, changes: Sequence[Change]) -> None:
        """Apply all changes or none."""
        async with self._lock:
            await asyncio.to_thread(self._change_now, changes)

    def _change_now(self, changes: Sequence[Change]) -> None:
        connection = self._file.opened()
        try:
            connection.execute("BEGIN IMMEDIATE")
            _execute(connection, changes)
            connection.execute("COMMIT")
        except (sqlite3.DataError, sqlite3.IntegrityError) as exc:
            _roll_back(connection)
            raise RowRefusedError(f"{self.words} refuses it: {exc}") from exc
        except sqlite3.Error as exc:
            _roll_back(connection)
            raise ExportError(f"{self.words} cannot be written: {exc}") from exc
        except RowAppearedError:
            _roll_back(connection)
            raise


def _execute(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    for number, change in enumerate(changes):
        arguments = Arguments("?")
        if not connection.execute(render(change, arguments), arguments.values).rowcount and number == 0:
            raise RowAppearedError


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # there may be no transaction; what went wrong is being told already
        connection.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    try:
        connection = sqlite3.connect(
            address, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.text_factory = as_text
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as exc:
        raise ExportError(f"the SQLite database {path} cannot be opened: {exc}") from exc
    return connection
