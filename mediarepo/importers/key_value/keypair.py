"""Reads the record in which Conduit, Tuwunel and their forks keep their signing key: `keypair` in the tree `global`."""

import sqlite3
from contextlib import closing
from pathlib import Path

from mediarepo.importers.errors import SourceError
from mediarepo.importers.key_value.conduit import load_conduit_config
from mediarepo.importers.key_value.rocksdb import ask_families
from mediarepo.importers.readers.source_sqlite import SqliteFile

_TREE, _KEY = "global", b"keypair"
_SQLITE = "conduit.db"


def read_keypair(path: Path) -> bytes:
    """Read the record; `path` is the server's configuration (conduit.toml, tuwunel.toml) or its database's folder.

    Raises SourceError when there is no such record, or no database that can be read (SourceConfigError).
    """
    folder = path if path.is_dir() else load_conduit_config(path).database_path
    record = _from_sqlite(folder / _SQLITE) if (folder / _SQLITE).is_file() else _from_rocksdb(folder)
    if record is None:
        raise SourceError(f"the database {folder} has no signing key (`keypair` in `global`): it was never started")
    return record


def _from_rocksdb(folder: Path) -> bytes | None:
    return ask_families(folder, (_TREE,), lambda families: families.get(_TREE, _KEY)).get(_KEY)


def _from_sqlite(file_path: Path) -> bytes | None:
    def ask(connection: sqlite3.Connection) -> bytes | None:
        row = connection.execute(f'SELECT value FROM "{_TREE}" WHERE key = ?', (_KEY,)).fetchone()
        return None if row is None else bytes(row[0])

    try:
        with closing(SqliteFile(file_path)) as file:
            return file.ask(ask)
    except sqlite3.Error as exc:
        raise SourceError(f"{file_path} cannot be read as a database of Conduit: {exc}") from exc
