"""Reads RocksDB through the `rocksdict` wheel where it is installed."""

import importlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice, takewhile
from pathlib import Path
from typing import Protocol, TypeVar, cast

from mediarepo.importers.errors import SourceError

_Answer = TypeVar("_Answer")


class _Family(Protocol):
    def items(self, *, from_key: bytes | None = None) -> Iterable[tuple[bytes, bytes]]: ...
    def get(self, key: bytes) -> bytes | None: ...


class _Opened(Protocol):
    def get_column_family(self, name: str) -> _Family: ...
    def close(self) -> None: ...


class Families:
    """Column families of an open database; absent ones are empty."""

    def __init__(self, opened: _Opened, present: Collection[str]) -> None:
        self._opened = opened
        self._present = present

    def all(self, name: str) -> dict[bytes, bytes]:
        """Read a whole column family."""
        return dict(self._opened.get_column_family(name).items()) if name in self._present else {}

    def get(self, name: str, key: bytes) -> dict[bytes, bytes]:
        """Return the value of a key, or None."""
        value = self._opened.get_column_family(name).get(key) if name in self._present else None
        return {} if value is None else {key: value}

    def with_prefix(self, name: str, start: bytes, *, at_most: int) -> dict[bytes, bytes]:
        """Return the first rows whose keys have a prefix."""
        if name not in self._present:
            return {}
        rows = self._opened.get_column_family(name).items(from_key=start)
        return dict(islice(takewhile(lambda row: row[0].startswith(start), rows), at_most))


def read_families(path: Path, names: Collection[str]) -> dict[str, Mapping[bytes, bytes]]:
    """Read whole column families, as `ask_families` does."""
    return ask_families(path, names, lambda families: {name: families.all(name) for name in names})


def ask_families(path: Path, names: Collection[str], question: Callable[[Families], _Answer]) -> _Answer:
    """Query column families while the server may be writing to them.

    Raises SourceError when `rocksdict` is not installed, or the folder is no RocksDB database.
    """
    try:
        rocksdict = importlib.import_module("rocksdict")
    except ImportError:
        raise SourceError("the database is RocksDB's; install mediarepo with its extra rocksdb to read it") from None
    if not (path / "CURRENT").is_file():
        raise SourceError(f"{path} is no database of RocksDB")
    try:
        options = rocksdict.Options(raw_mode=True)
        present = set(rocksdict.Rdict.list_cf(str(path), options)) & set(names)
        with tempfile.TemporaryDirectory(prefix="mediarepo-") as own_log:
            opened = rocksdict.Rdict(
                str(path),
                options,
                column_families={name: rocksdict.Options(raw_mode=True) for name in {"default", *present}},
                access_type=rocksdict.AccessType.secondary(own_log),
            )
            try:
                return question(Families(cast("_Opened", opened), present))
            finally:
                opened.close()
    except Exception as exc:  # the wheel raises bare exceptions alone
        raise SourceError(f"the database {path} cannot be read: {exc}") from exc
