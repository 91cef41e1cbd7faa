"""Canonical JSON, the one text that signatures are made over (Matrix appendices, "Canonical JSON")."""

import json

_LARGEST = 2**53 - 1


def canonical_json(value: object) -> bytes:
    """Write a value canonically; ValueError for fractions, huge integers, lone surrogates."""
    _check(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode("utf-8")


def _check(value: object) -> None:
    match value:
        case None | bool() | str():
            return
        case int():
            if abs(value) > _LARGEST:
                raise ValueError("an integer is too large for canonical JSON")
        case list() | tuple():
            for item in value:
                _check(item)
        case dict():
            for name, item in value.items():
                _check_name(name)
                _check(item)
        case _:
            raise ValueError(f"{type(value).__name__} does not exist in canonical JSON")


def _check_name(name: object) -> None:
    match name:
        case str():
            return
        case _:
            raise ValueError("a name in canonical JSON must be a text")
