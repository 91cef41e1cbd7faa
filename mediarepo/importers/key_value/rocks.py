"""RocksDB, read through the `rocksdict` wheel where it is installed."""

import importlib
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol, cast

from mediarepo.importers.errors import SourceError


class _Family(Protocol):
    def items(self) -> Iterable[tuple[bytes, bytes]]: ...


class _Opened(Protocol):
    def get_column_family(self, name: str) -> _Family: ...
    def close(self) -> None: ...


def read_families(path: Path, names: Collection[str]) -> dict[str, Mapping[bytes, bytes]]:
    """Read column families whole, beside the server that may be writing to them; absent ones are empty.

    Raises SourceError where `rocksdict` is not installed, or the folder is no database of RocksDB.
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
            return _read(cast("_Opened", opened), names, present)
    except Exception as exc:  # the wheel raises bare exceptions alone
        raise SourceError(f"the database {path} cannot be read: {exc}") from exc


def _read(opened: _Opened, names: Collection[str], present: Collection[str]) -> dict[str, Mapping[bytes, bytes]]:
    try:
        return {name: dict(opened.get_column_family(name).items()) if name in present else {} for name in names}
    finally:
        opened.close()
