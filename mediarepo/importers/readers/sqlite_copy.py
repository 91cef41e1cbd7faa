"""Copies a SQLite database with its journal or log: a standalone program that needs the standard library alone."""

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

IN_USE = 75
"""The exit status when another process works on the database: nothing was left over, and it can be read as it is."""

_PENDING = 0x40000000
_RESERVED, _SHARED, _SHARED_BYTES = _PENDING + 1, _PENDING + 2, 510
_CHECKPOINT, _FIRST_READER = 121, 124
_FLOCK = "hhqqi"
_MODE_OFFSET, _WAL_VERSION = 18, 2
_PATIENCE_S, _PAUSE_S = 30, 0.02
_PIECE = 1 << 20
_PR_SET_PDEATHSIG = 1


class InUseError(Exception):
    """Another process holds a lock on the database."""


def copy_database(path: Path, folder: Path) -> None:
    """Copy a database and its journal, as both are at one moment. Raises InUseError or OSError."""
    log, index = beside(path, "-wal"), beside(path, "-shm")
    with ExitStack() as stack:
        database = stack.enter_context(path.open("rb"))
        _share(database, _PENDING, 1)
        _share(database, _SHARED, _SHARED_BYTES)
        fcntl.lockf(database, fcntl.LOCK_UN, 1, _PENDING)
        if database.read(_MODE_OFFSET + 1)[_MODE_OFFSET:] != bytes([_WAL_VERSION]):
            _pour(_left_journal(path, database, stack), folder)
            _pour(database, folder)
            return
        indexed = index.exists()
        if indexed:
            # Nobody folds the log into the database, or begins it anew, without these; what is appended does no harm.
            locks = stack.enter_context(index.open("rb"))
            _share(locks, _CHECKPOINT, 1)
            _share(locks, _FIRST_READER, 1)
        _pour(database, folder)
        if log.exists():
            _pour(stack.enter_context(log.open("rb")), folder)
        if index.exists() != indexed:
            raise InUseError


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file that SQLite keeps beside its database."""
    return path.with_name(f"{path.name}{suffix}")


def _left_journal(path: Path, database: IO[bytes], stack: ExitStack) -> IO[bytes]:
    """Open a journal that was left over; while we share the database, nobody can roll it back."""
    try:
        journal = stack.enter_context(beside(path, "-journal").open("rb"))
    except FileNotFoundError:
        raise InUseError from None
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _RESERVED, 1, 0)
    if struct.unpack(_FLOCK, fcntl.fcntl(database, fcntl.F_GETLK, question))[0] != fcntl.F_UNLCK:
        raise InUseError  # a transaction that is going on
    return journal


def _share(file: IO[bytes], start: int, length: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
        except BlockingIOError:
            if time.monotonic() > until:
                raise InUseError from None
            time.sleep(_PAUSE_S)
        else:
            return


def _pour(source: IO[bytes], folder: Path) -> None:
    source.seek(0)
    with (folder / Path(source.name).name).open("xb") as target:
        shutil.copyfileobj(source, target, _PIECE)


def main() -> None:
    """Copy the database of the first argument into the folder of the second."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        copy_database(Path(sys.argv[1]), Path(sys.argv[2]))
    except InUseError:
        sys.exit(IN_USE)
    except OSError as exc:
        sys.exit(f"{exc.strerror}: {exc.filename}" if exc.filename else str(exc.strerror))


if __name__ == "__main__":
    main()
