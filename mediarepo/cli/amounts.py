"""Amounts per second as options take them, and what is wrong with options."""

import re
from typing import Annotated

import typer

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?(?:/s)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

BwLimit = Annotated[str | None, typer.Option("--bwlimit", help="Maximum bytes per second, as in 50M.")]


class UsageError(Exception):
    """The command line asks for something that cannot be done; the message says why."""


def amount(option: str, text: str | None) -> float | None:
    """Read an amount per second, such as 50M. Raises UsageError when it is none."""
    if text is None:
        return None
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{option}: {text!r} is not an amount such as 50M or 200")
    return float(match[1]) * _UNITS[match[2].upper()]
