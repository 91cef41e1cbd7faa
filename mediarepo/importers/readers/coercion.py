"""Coerces values of other servers' databases and YAML files, whatever their types."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from mediarepo.importers.errors import SourceConfigError
from mediarepo.model.import_source import SourceMedia, SourceThumbnail

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_HEX_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_BIGINT = 2**63

Row = Mapping[str, object]


class Values:
    """Reads one row's values; `repaired` names the columns whose values had to be changed."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.repaired: list[str] = []

    def text(self, column: str) -> str | None:
        """Return a text without NULs and lone surrogates, which Postgres does not store."""
        value = as_text(self._row[column])
        if value is None:
            return None
        kept = _NOT_STORABLE.sub("", value)
        if kept != value:
            self.repaired.append(column)
        return kept

    def integer(self, column: str) -> int | None:
        """Return a 64-bit integer; None for anything else."""
        value = self._row[column]
        if value is None:
            return None
        try:
            number = int(value)  # type: ignore[call-overload]  # whatever SQLite holds
        except (TypeError, ValueError, OverflowError):
            number = _BIGINT
        if not -_BIGINT <= number < _BIGINT:
            self.repaired.append(column)
            return None
        return int(number)

    def size(self, column: str) -> int | None:
        """Return a number of bytes; None when negative."""
        number = self.integer(column)
        if number is None or number >= 0:
            return number
        self.repaired.append(column)
        return None

    def flag(self, column: str) -> bool:
        """Return a boolean, which may be a number or NULL."""
        return bool(self._row[column])

    def sha256(self, column: str) -> bytes | None:
        """Parse 64 hexadecimal digits; None for anything else."""
        value = as_text(self._row[column])
        if not value:
            return None
        if _HEX_SHA256.fullmatch(value):
            return bytes.fromhex(value)
        self.repaired.append(column)
        return None


class ThumbnailColumns(NamedTuple):
    """The names of the columns that describe a thumbnail."""

    width: str
    height: str
    method: str
    content_type: str
    size_bytes: str


def source_thumbnail(
    media: SourceMedia, values: Values, columns: ThumbnailColumns, *, filesystem_id: str | None, animated: bool = False
) -> SourceThumbnail:
    """Return a row of thumbnails as a thumbnail of these media."""
    return SourceThumbnail(
        server_name=media.server_name,
        media_id=media.media_id,
        kind=media.kind,
        width=values.integer(columns.width) or 0,
        height=values.integer(columns.height) or 0,
        method=values.text(columns.method) or "",
        content_type=values.text(columns.content_type) or "",
        size_bytes=values.size(columns.size_bytes),
        filesystem_id=filesystem_id,
        animated=animated,
    )


def as_text(value: object) -> str | None:
    """Return any column value as text; invalid UTF-8 becomes lone surrogates."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return str(value)


def key_text(value: object) -> str:
    """Return a key column as text, unchanged, so that it finds its row again."""
    return as_text(value) or ""


_SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_DURATIONS_MS = {
    "": 1,
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_WITH_UNIT = re.compile(r"\s*(\d+)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)


def load_files(paths: Iterable[Path]) -> dict[str, object]:
    """Read YAML files, and the *.yaml files of folders; later ones replace keys of earlier ones."""
    together: dict[str, object] = {}
    for path in paths:
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            together.update(_load(file))
    return together


def _load(path: Path) -> dict[str, object]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SourceConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise SourceConfigError(f"{path} is not YAML: {exc}") from exc
    return yaml_section(document, str(path))


def load_toml(path: Path) -> dict[str, object]:
    """Read a TOML file. Raises SourceConfigError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SourceConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SourceConfigError(f"{path} is not TOML: {exc}") from exc


def yaml_section(value: object, where: str) -> dict[str, object]:
    """Return a mapping; {} for None. Raises SourceConfigError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SourceConfigError(f"{where} is not a mapping")
    return {str(name): one for name, one in value.items()}


def yaml_entries(value: object, where: str) -> Sequence[object]:
    """Return a list; [] for None. Raises SourceConfigError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise SourceConfigError(f"{where} is not a list")
    return value


def yaml_text(value: object) -> str | None:
    """Return a scalar as text; None for null and the empty string."""
    return None if value is None or value == "" else str(value)


def parse_size_bytes(value: object, default: int) -> int:
    """Parse a size such as 50M, in bytes."""
    return _with_unit(value, default, _SIZES)


def parse_duration_ms(value: object, default: int) -> int:
    """Parse a duration such as 24h, in ms; a plain number is in ms already."""
    return _with_unit(value, default, _DURATIONS_MS)


def _with_unit(value: object, default: int, units: Mapping[str, int]) -> int:
    if value is None:
        return default
    match = _WITH_UNIT.fullmatch(str(value))
    if match is None or match[2].lower() not in units:
        raise SourceConfigError(f"{value!r} is not understood as a size or a duration")
    return int(match[1]) * units[match[2].lower()]
