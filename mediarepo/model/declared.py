"""Validates what others declare about media: types, names, users, times; one rule for every path.

What an upload would be refused for cannot be passed on either: `content_type_or_default` and the others leave it out.
"""

import re
from collections.abc import Iterable

from mediarepo.errors import InvalidParamError
from mediarepo.model.requester import parse_user_id

UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of others."""


def check_text(texts: Iterable[tuple[str, str]]) -> None:
    """Check texts for control characters, by field name. Raises InvalidParamError naming the field."""
    for name, text in texts:
        if UNSPEAKABLE.search(text) or UNSPEAKABLE.search(name):
            raise InvalidParamError(f"{UNSPEAKABLE.sub('?', name)} may not contain control characters")


DEFAULT_CONTENT_TYPE = "application/octet-stream"
MAX_CONTENT_TYPE_CHARS = 255
MAX_UPLOAD_NAME_BYTES = 2048

LAST_TS = 253_402_300_799_000
"""The last second of the year 9999, in ms: what clients and headers can show."""

_CONTENT_TYPE = re.compile(rf"[\x20-\x7e\t]{{1,{MAX_CONTENT_TYPE_CHARS}}}", re.ASCII)
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_SECONDS = (10**9, 10**10)
"""Between these, a time is one in seconds: in ms it would be of the first months of 1970."""


def is_content_type(text: str) -> bool:
    """Return whether a content type is valid as a header: printable ASCII of up to 255 characters."""
    return _CONTENT_TYPE.fullmatch(text) is not None and not text.isspace()


def content_type_or_default(text: str | None) -> str:
    """Return a declared content type, or application/octet-stream when it is invalid as a header."""
    return text.strip() if text is not None and is_content_type(text) else DEFAULT_CONTENT_TYPE


def upload_name_or_none(text: str | None) -> str | None:
    """Return a file name without characters that Postgres does not store; None for a very long one."""
    if text is None:
        return None
    kept = _NOT_STORABLE.sub("", text)
    return kept if len(kept.encode()) <= MAX_UPLOAD_NAME_BYTES else None


def user_id_or_none(text: str | None) -> str | None:
    """Return a user id; None when it is invalid."""
    try:
        return str(parse_user_id(text)) if text else None
    except InvalidParamError:
        return None


def time_or_none(ts: int | None) -> int | None:
    """Return a time in ms, given in ms or seconds; None when absent, before 1970 or after the year 9999."""
    if not ts or ts < 0:
        return None
    in_ms = ts * 1000 if _SECONDS[0] <= ts < _SECONDS[1] else ts
    return in_ms if in_ms <= LAST_TS else None
