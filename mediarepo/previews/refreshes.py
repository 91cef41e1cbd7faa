"""Where a page sends its readers on: the Refresh header and meta refresh (HTML, "shared declarative refresh steps")."""

import re

_MAX_CHARS = 8192
_MAX_REFRESH_S = 10
_TIME = re.compile(r"\s*(?:([0-9]{1,9})|(?=\.))[0-9.]*(?:\s+|\s*(?=[;,])|\Z)")
_URL = re.compile(r"[;,]?\s*(?:url\s*=\s*)?", re.IGNORECASE)


def parse_refresh(text: str) -> str | None:
    """Give the reference that readers are soon sent to, as it is written; None when they stay, or stay for long."""
    text = text[:_MAX_CHARS]
    time = _TIME.match(text)
    if time is None or int(time[1] or 0) > _MAX_REFRESH_S:
        return None
    begin = _URL.match(text, time.end())
    reference = text[begin.end() if begin else time.end() :]
    if reference[:1] in {'"', "'"}:
        reference = reference[1:].partition(reference[0])[0]
    return reference.strip() or None
