"""Content-Type headers, however many types they hold (Fetch, "extract a MIME type")."""

import re
from collections.abc import Sequence

_ONE = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))+', re.DOTALL)
_ESSENCE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHARSET = re.compile(r";\s*charset=(\"[^\"]*\"|[^;]*)", re.IGNORECASE)
_MAX_CHARS = 8192


def extract_content_type(values: Sequence[str]) -> str | None:
    """Choose the last valid type, with the charset that an equal one before it named; None when none is valid."""
    chosen: str | None = None
    essence, charset = "", ""
    for found in _ONE.finditer(",".join(values)[:_MAX_CHARS]):
        text = found[0].strip()
        kind = text.partition(";")[0].strip().lower()
        if not _ESSENCE.fullmatch(kind) or kind == "*/*":
            continue
        named = _CHARSET.search(text)
        if kind != essence:
            essence, charset = kind, ""
        if named is not None:
            charset = named[0]
        chosen = text if named is not None else text + charset
    return chosen
