"""Patterns that operators write: with * and ?, or as a regular expression when they begin with ^."""

import fnmatch
import re
from collections.abc import Callable

from mediarepo.outbound.errors import OutboundError
from mediarepo.outbound.urls import web_host

MAX_MATCHED_CHARS = 4096


def compiled(pattern: str) -> Callable[[str], bool]:
    """Turn a pattern into a judge over texts, whole and in any case of letters; re.error for one that is none.

    Nothing beyond the first `MAX_MATCHED_CHARS` characters is looked at.
    """
    expression = re.compile(pattern if pattern.startswith("^") else _as_regex(pattern), re.IGNORECASE)
    by_regex = pattern.startswith("^")

    def judge(text: str) -> bool:
        text = text[:MAX_MATCHED_CHARS]
        found = expression.search(text) if by_regex else expression.fullmatch(text)
        return found is not None

    return judge


def _as_regex(pattern: str) -> str:
    """Spell a glob as a regular expression; brackets stand for themselves, since IPv6 addresses have them."""
    return fnmatch.translate(pattern.replace("[", "[[]"))


def compiled_host(pattern: str) -> Callable[[str], bool]:
    """Turn a pattern of host names into a judge; names and addresses may be written in any way that URLs may."""
    if pattern.startswith("^"):
        return compiled(pattern)
    if "*" not in pattern and "?" not in pattern:
        return compiled(_spelt(pattern))
    if pattern.isascii():
        return compiled(pattern.strip("[]") if ":" in pattern else pattern)
    return compiled(".".join(label if label.isascii() else _spelt(label) for label in pattern.lower().split(".")))


def _spelt(host: str) -> str:
    try:
        return web_host(host)
    except OutboundError:
        return host
