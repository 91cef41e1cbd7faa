"""Other servers' YAML files, whose values may be anything."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from mediarepo.importers.errors import SourceConfigError

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
    """Read files, and the *.yaml files of folders; what a later one says replaces what an earlier one said."""
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
    return section(document, str(path))


def section(value: object, where: str) -> dict[str, object]:
    """Expect a mapping, or nothing at all."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SourceConfigError(f"{where} is not a mapping")
    return {str(name): one for name, one in value.items()}


def entries(value: object, where: str) -> Sequence[object]:
    """Expect a list, or nothing at all."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise SourceConfigError(f"{where} is not a list")
    return value


def text(value: object) -> str | None:
    """Make text of a plain value; None of nothing and of the empty text."""
    return None if value is None or value == "" else str(value)


def size_bytes(value: object, default: int) -> int:
    """Read 50M as a number of bytes."""
    return _with_unit(value, default, _SIZES)


def duration_ms(value: object, default: int) -> int:
    """Read 24h as a number of ms; a plain number is one already."""
    return _with_unit(value, default, _DURATIONS_MS)


def _with_unit(value: object, default: int, units: Mapping[str, int]) -> int:
    if value is None:
        return default
    match = _WITH_UNIT.fullmatch(str(value))
    if match is None or match[2].lower() not in units:
        raise SourceConfigError(f"{value!r} is not understood as a size or a duration")
    return int(match[1]) * units[match[2].lower()]
