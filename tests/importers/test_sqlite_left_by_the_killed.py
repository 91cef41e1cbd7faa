"""SQLite databases that cannot be read without writing: their servers were killed, or their folders are read-only."""

import ctypes
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediarepo.importers.errors import SourceError, SourceUnavailableError
from mediarepo.importers.readers import source_sqlite, sqlite_copy
from mediarepo.importers.readers.source_sqlite import SqliteDatabase, SqliteFile

COUNT = "SELECT count(*), min(words), max(words) FROM media"
BEFORE, AFTER = (3000, "old", "old"), (3000, "new", "new")
WRITER = """
import os, signal, sqlite3, sys
path, mode, end = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None)
connection.execute(f"PRAGMA journal_mode = {mode}")
connection.execute("PRAGMA cache_size = 2")  # pages go into the file before the end of the transaction
connection.execute("CREATE TABLE media (number INTEGER PRIMARY KEY, words TEXT, filling TEXT)")
connection.execute("BEGIN IMMEDIATE")
connection.executemany("INSERT INTO media VALUES (?, 'old', ?)", [(number, "x" * 100) for number in range(3000)])
connection.execute("COMMIT")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE media SET words = 'new'")
print("writing", flush=True)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.readline()
connection.execute("COMMIT")
"""
READER = """
import os, signal, sys
from pathlib import Path
from mediarepo.importers.readers.source_sqlite import SqliteFile
file = SqliteFile(Path(sys.argv[1]))
print(file.ask(lambda connection: connection.execute("SELECT count(*) FROM media").fetchone()[0]), file=sys.stderr)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that private copies are made in."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data #1?").mkdir()
    return tmp_path / "data #1?" / "home server%20.db"


def left(path: Path, mode: str) -> Path:
    """Leave a database as a writer does that is killed in a transaction."""
    done = subprocess.run([sys.executable, "-c", WRITER, path, mode, "killed"], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"writing\n"), done.stderr
    return path


def asked(file: SqliteFile) -> tuple[int, str, str]:
    return file.ask(lambda connection: tuple(connection.execute(COUNT).fetchone()))


def contents(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in path.parent.iterdir()}


@pytest.fixture
def bound() -> Iterator[None]:
    """Let permissions bind this thread, be it root's: take CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from it."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, after = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == libc.capget(header, after) == 0
    after[0] &= ~0b110
    assert libc.capset(header, after) == 0
    yield
    assert libc.capset(header, before) == 0


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST"])
def test_a_transaction_that_was_never_ended_is_left_out_and_the_database_as_it_is(
    path: Path, copies: Path, mode: str
) -> None:
    before = contents(left(path, mode))
    assert set(before) == {path.name, f"{path.name}-journal"}

    file = SqliteFile(path)
    read, again = asked(file), asked(file)
    while_open = list(copies.iterdir())
    file.close()

    assert (read, again) == (BEFORE, BEFORE)
    assert contents(path) == before
    assert "private copy" in file.warnings[0]
    assert while_open == []


async def test_the_database_says_so(path: Path, copies: Path) -> None:
    database = SqliteDatabase(left(path, "DELETE"))

    rows = await database.rows("SELECT count(*) AS rows FROM media")
    warnings = database.warnings
    await database.close()

    assert rows == [{"rows": 3000}]
    assert "private copy" in warnings[0]
    assert not list(copies.iterdir())


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_folder_that_cannot_be_written_is_read(path: Path, copies: Path, mode: str) -> None:
    left(path, mode)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    before, file = contents(path), SqliteFile(path)
    path.parent.chmod(0o555)
    try:
        read = asked(file)
    finally:
        path.parent.chmod(0o755)

    assert read == BEFORE
    assert contents(path) == before
    assert "private copy" in file.warnings[0]
    assert not list(copies.iterdir())


@pytest.mark.usefixtures("copies")
def test_what_cannot_be_copied_either_is_told_with_a_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(path, "DELETE")
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(SourceError, match=r"cannot be read.*run this as the server's user"):
        asked(SqliteFile(path))


@pytest.mark.usefixtures("copies")
def test_once_its_server_has_mended_it_the_database_itself_is_read(path: Path) -> None:
    file = SqliteFile(left(path, "DELETE"))
    copied = asked(file)
    with sqlite3.connect(path) as server:
        server.execute("UPDATE media SET words = 'new'")
    server.close()

    assert (copied, asked(file)) == (BEFORE, AFTER)
    assert file.warnings == []


@pytest.mark.usefixtures("copies")
def test_a_server_that_dies_between_two_questions_is_noticed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = left(tmp_path / "other" / path.name, "DELETE")
    with sqlite3.connect(path) as server:
        server.execute("CREATE TABLE media (number INTEGER PRIMARY KEY, words TEXT)")
    server.close()
    file = SqliteFile(path)
    empty = file.ask(lambda connection: connection.execute("SELECT count(*) FROM media").fetchone()[0])
    path.write_bytes(other.read_bytes())
    shutil.copy(f"{other}-journal", f"{path}-journal")

    assert (empty, asked(file)) == (0, BEFORE)


@pytest.mark.usefixtures("copies")
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_transaction_that_goes_on_is_never_copied(path: Path, tmp_path: Path, mode: str) -> None:
    """Neither before its end nor after it does a copy hold half of it."""
    command = [sys.executable, "-c", WRITER, str(path), mode, "ended"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        during = tmp_path / "during"
        during.mkdir()
        script = [sys.executable, "-I", sqlite_copy.__file__, str(path), str(during)]
        copying = subprocess.Popen(script)
        if mode == "WAL":  # what is committed can be had at any time
            assert copying.wait() == 0
        writer.stdin.write(b"\n")
        writer.stdin.close()
        writer.wait()
        status = copying.wait()

    assert status == (0 if mode == "WAL" else sqlite_copy.IN_USE)
    assert asked(SqliteFile(path)) == AFTER
    if mode == "WAL":
        connection = sqlite3.connect(during / path.name)
        assert connection.execute(COUNT).fetchone() == BEFORE
        connection.close()


@pytest.mark.usefixtures("copies")
def test_a_database_that_is_never_left_alone_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(path, "DELETE")
    monkeypatch.setattr(source_sqlite, "_copy", lambda *_: False)

    with pytest.raises(SourceUnavailableError, match="try later"):
        asked(SqliteFile(path))


def test_a_killed_reader_leaves_no_copy(path: Path, copies: Path) -> None:
    reader = subprocess.run([sys.executable, "-c", READER, left(path, "DELETE")], check=False, capture_output=True)

    assert (reader.returncode, reader.stderr) == (-signal.SIGKILL, b"3000\n"), reader.stdout
    assert not list(copies.iterdir())


def test_what_was_left_by_one_that_was_killed_while_it_copied_is_removed(path: Path, copies: Path) -> None:
    stale = copies / "mediarepo-sqlite-stale"
    stale.mkdir()
    (stale / "homeserver.db").write_bytes(b"half")

    assert asked(SqliteFile(left(path, "DELETE"))) == BEFORE
    assert not list(copies.iterdir())


@pytest.mark.usefixtures("copies")
def test_without_room_for_a_copy_the_operator_is_told_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(path, "DELETE")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))

    with pytest.raises(SourceError, match=r"needs \d+ bytes: let TMPDIR name a folder"):
        asked(SqliteFile(path))
