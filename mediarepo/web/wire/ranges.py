"""Byte ranges (RFC 9110 section 14): one at a time; anything else is answered with the whole."""

import re

from mediarepo.errors import RangeNotSatisfiableError
from mediarepo.model.byte_stream import Span

_SINGLE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
_MAX_HEADER_CHARS = 64


def parse_range(header: str | None, size_bytes: int) -> Span | None:
    """Read a Range header against a whole of `size_bytes`; None means: send the whole.

    Several ranges, other units and nonsense are ignored, as the RFC allows; a range past the end is refused.
    """
    if header is None or len(header) > _MAX_HEADER_CHARS:
        return None
    match = _SINGLE.fullmatch(header)
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size_bytes)
    if last and int(last) < int(first):
        return None
    if int(first) >= size_bytes:
        raise RangeNotSatisfiableError("the range begins after the last byte", size_bytes=size_bytes)
    end = min(int(last) + 1, size_bytes) if last else size_bytes
    return Span(int(first), end - int(first))


def _suffix(wanted: int, size_bytes: int) -> Span | None:
    if wanted == 0:
        raise RangeNotSatisfiableError("the range holds no byte", size_bytes=size_bytes)
    if size_bytes == 0:
        return None
    return Span(max(size_bytes - wanted, 0), min(wanted, size_bytes))
