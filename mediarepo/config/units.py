"""Durations and sizes with units, as in "1h" and "8 MiB", for settings whose names say ms, seconds or bytes."""

import re
from collections.abc import Mapping
from decimal import Decimal

_WITH_UNIT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)[ \t]*([A-Za-z]+)", re.ASCII)
_DURATIONS_MS: Mapping[str, int] = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_SIZES: Mapping[str, int] = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
DURATION_HELP = "a number, or a duration such as 500ms, 30s, 5m, 1h, 30d"
SIZE_HELP = "a number of bytes, or a size such as 64 KiB, 8 MiB, 1.5 GB"


def unit_help(name: str) -> str | None:
    """Describe what a setting of this name takes; None when it takes no units."""
    if "bytes" in name.split("_"):
        return SIZE_HELP
    return DURATION_HELP if name.endswith(("_ms", "_s")) else None


def without_unit(name: str, value: object) -> object:
    """Turn a text with a unit into the number that the setting's name asks for.

    What is no such text, or gives no whole number, is returned as it is, for the model to refuse.
    """
    wanted = unit_help(name)
    match = _WITH_UNIT.fullmatch(value.strip()) if wanted is not None and isinstance(value, str) else None
    if match is None:
        return value
    number, unit = Decimal(match[1]), match[2].lower()
    if wanted == SIZE_HELP:
        factor = Decimal(_SIZES[unit]) if unit in _SIZES else None
    else:
        factor = Decimal(_DURATIONS_MS[unit]) / (1 if name.endswith("_ms") else 1000) if unit in _DURATIONS_MS else None
    if factor is None or number * factor != int(number * factor):
        return value
    return int(number * factor)
