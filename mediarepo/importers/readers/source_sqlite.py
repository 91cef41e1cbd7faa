"""A source's SQLite database, possibly in use or left by a crash; it is never written to."""

import asyncio
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import structlog

from mediarepo.importers.errors import SourceError, SourceUnavailableError
from mediarepo.importers.readers import sqlite_copy
from mediarepo.importers.readers.coercion import Row, as_text, key_text
from mediarepo.importers.readers.source_database import Dialect, Selection, key_name, render_select
from mediarepo.importers.readers.sqlite_copy import beside

_Answer = TypeVar("_Answer")
_BUSY_TIMEOUT_S = 30
_HEADER_BYTES = 100
_MODE_OFFSET, _WAL_VERSION = 18, 2
_ATTEMPTS = 5
_SPARE_BYTES = 16 * 1024 * 1024
_PREFIX = "mediarepo-sqlite-"
# Primary result codes, sqlite.org/rescode.html: what stands in the way of reading alone.
_READONLY, _CANTOPEN = 8, 14

log = structlog.get_logger(__name__)


class SqliteFile:
    """Queries a database file; not safe for several threads at once.

    A log that cannot be read for lack of permission must not be ignored. Without a log, no process has the database
    open, and it is read as immutable: anything else would leave an empty log behind. What needs a write before it can
    be read (a rollback journal) is read through a private copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._connection: sqlite3.Connection | None = None
        self._unused = False
        self._copied: tuple[object, ...] | None = None

    def close(self) -> None:
        """Close the file, and remove the private copy."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._unused, self._copied = None, False, None

    def ask(self, question: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Run a query, again when the file changed in a way that may have spoilt the result.

        Raises sqlite3.Error, SourceError when the file cannot be read at all, SourceUnavailableError when it keeps
        changing.
        """
        for _ in range(_ATTEMPTS):
            try:
                answer = question(self._opened())
            except sqlite3.OperationalError as exc:
                if self._copied is not None or not _needs_writing(exc):
                    raise
                self.close()
                self._open_copy(exc)
                continue
            if not self._is_stale():  # otherwise its server may have changed pages under our eyes
                return answer
        raise SourceUnavailableError(f"the SQLite database {self.path} is opened and left again and again: try later")

    def _opened(self) -> sqlite3.Connection:
        if self._is_stale() or (self._copied is not None and self._copied != _state_of(self.path)):
            self.close()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _is_stale(self) -> bool:
        """Say whether somebody has opened a database that was taken for unused."""
        return self._unused and log_of(self.path).exists()

    def _open(self) -> sqlite3.Connection:
        in_wal_mode = _read_header(self.path)[_MODE_OFFSET] == _WAL_VERSION
        self.warnings = []
        try:
            if not in_wal_mode or log_of(self.path).exists():
                return _connect(self.path, "mode=ro")
            connection = _connect(self.path, "mode=ro&immutable=1")
        except sqlite3.Error as exc:
            if _needs_writing(exc):
                raise
            raise SourceError(f"the SQLite database {self.path} cannot be read ({exc})") from exc
        self._unused = True
        beginning = f"{self.path} is in WAL mode but has no {log_of(self.path).name} beside it; if it was copied while "
        self.warnings = [beginning + "its server ran, what was written last is not in it"]
        return connection

    def _open_copy(self, reason: sqlite3.Error) -> None:
        """Open a copy in place of the file, unless somebody uses that again."""
        state = _state_of(self.path)
        try:
            with _private_folder(self.path) as (folder, lock):
                if not _copy(self.path, folder, lock):
                    return
                # The folder is gone afterwards; what is open stays until it is closed, be it by a kill.
                self._connection = _connect(folder / self.path.name, "mode=rw")
        except (sqlite3.Error, OSError) as exc:
            words = f"the SQLite database {self.path} cannot be read ({reason}), and no copy of it either"
            raise SourceError(f"{words}: {exc}") from exc
        self._copied = state
        told = (
            f"{self.path} cannot be read without writing to it ({reason}): its server was killed in the middle of a "
            "transaction, or its folder is read-only. A private copy without that transaction is read, and the "
            "database stays as it is; its server mends it when it starts"
        )
        self.warnings = [told]
        log.warning("sqlite_database_copied", path=str(self.path), reason=str(reason))


def log_of(path: Path) -> Path:
    """Return the path of the write-ahead log, which exists while a process has the database open."""
    return beside(path, "-wal")


def _needs_writing(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {_READONLY, _CANTOPEN}


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
    """Open a file; one of our own that may be written to is first made whole, without a log beside it."""
    address = f"file:{quote(str(path.absolute()))}?{options}"
    connection = sqlite3.connect(
        address, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.text_factory = as_text
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if options == "mode=rw":
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _state_of(path: Path) -> tuple[object, ...]:
    """Tell a file and what lies beside it from themselves after any change."""
    state: list[object] = []
    for one in (path, beside(path, "-journal"), log_of(path)):
        with suppress(FileNotFoundError):
            found = one.stat()
            state.append((one.name, found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(state)


def _copy(path: Path, folder: Path, lock: int) -> bool:
    """Copy a database in a process of its own; False: somebody uses it, and it can be read as it is."""
    command = [sys.executable, "-I", sqlite_copy.__file__, str(path.absolute()), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, pass_fds=[lock])  # noqa: S603 - ourselves
    if done.returncode == sqlite_copy.IN_USE:
        return False
    if done.returncode:
        raise OSError(f"{done.stderr.decode(errors='replace').strip()}; run this as the server's user")
    return True


@contextmanager
def _private_folder(path: Path) -> Iterator[tuple[Path, int]]:
    """Make a folder for a copy, and a lock that says that somebody uses it; what killed ones left is removed."""
    needed = _SPARE_BYTES + path.stat().st_size
    for suffix in ("-journal", "-wal"):
        with suppress(FileNotFoundError):
            needed += 2 * beside(path, suffix).stat().st_size
    parent = _place_with_room(needed)
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder, lock
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place_with_room(needed: int) -> Path:
    """Choose a folder for temporary files: that of TMPDIR if set, otherwise the one for large ones."""
    places = [Path(tempfile.gettempdir())]
    if "TMPDIR" not in os.environ:
        places.insert(0, Path("/var/tmp"))  # noqa: S108 - a folder of our own is made in it
    for place in places:
        if os.access(place, os.W_OK) and shutil.disk_usage(place).free >= needed:
            return place
    raise OSError(f"it needs {needed} bytes: let TMPDIR name a folder that has them")


def _sweep(parent: Path) -> None:
    """Remove the copies of processes that were killed while they made them; an empty folder is being begun."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if folder.stat().st_uid == os.geteuid() and any(folder.iterdir()):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


_PAGE = 10_000


class SqliteDialect:
    """SQLite compares texts by their bytes unless told otherwise."""

    def text(self, number: int) -> str:
        """Return the placeholder of an argument given as bytes, so that texts of invalid UTF-8 find their rows too."""
        return f"CAST(?{number} AS TEXT)"

    def bytewise(self, expression: str) -> str:
        """Return the expression with the BINARY collation."""
        return f"{expression} COLLATE BINARY"


class SqliteDatabase:
    """Reads pages in short transactions, so that the server can checkpoint its log meanwhile."""

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
        """What an operator should know about how the file is read."""
        return self._file.warnings

    async def columns(self, table: str) -> frozenset[str]:
        """Return a table's columns; none when there is no such table."""
        found = await self._ask(f"PRAGMA table_info({table})", ())
        return frozenset(str(row["name"]) for row in found)

    async def stream(self, selection: Selection, after: Sequence[str] | None = None) -> AsyncGenerator[Row, None]:
        """Stream rows, a page at a time."""
        keys = range(len(selection.keys))
        textual = "".join(f" AND typeof({expression}) = 'text'" for expression in selection.keys)
        while True:
            query = render_select(_narrowed(selection, textual), self.dialect, after=after) + f" LIMIT {_PAGE}"
            page = await self._ask(query, (*selection.arguments, *(after or ())))
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            after = [key_text(page[-1][key_name(number)]) for number in keys]

    async def rows(self, query: str, *arguments: str) -> list[Row]:
        """Read a few rows."""
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
