"""The name of a file as another server tells it (RFC 6266, RFC 8187)."""

import re
from urllib.parse import unquote_to_bytes

_MAX_NAME_BYTES = 2048
_MAX_HEADER_CHARS = 16 * 1024
_PARAMETER = re.compile(
    r""";\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.|"(?!\s*(?:;|$)))*)"|([^;"]*))""",
    re.ASCII,
)
_UNWANTED = re.compile(r"[\x00-\x1f\x7f]")


def parse_upload_name(content_disposition: str | None) -> str | None:
    """Read the name, if there is one that can be kept; `filename*` counts more than `filename`."""
    if content_disposition is None or len(content_disposition) > _MAX_HEADER_CHARS:
        return None
    parameters: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(";" + content_disposition.partition(";")[2]):
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain.strip()
        parameters.setdefault(name.lower(), value)
    return _kept(_extended(parameters.get("filename*", ""))) or _kept(_as_utf8(parameters.get("filename", "")))


def _extended(value: str) -> str:
    """Read `utf-8''%E2%98%83`; anything else counts as no name."""
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    if not quote or charset.lower() not in {"utf-8", "us-ascii", "iso-8859-1"}:
        return ""
    return unquote_to_bytes(encoded).decode(charset, "replace")


def _as_utf8(value: str) -> str:
    """Read bytes beyond ASCII, which servers send raw, as UTF-8."""
    try:
        return value.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return value.encode("utf-8", "replace").decode("utf-8")


def _kept(name: str) -> str | None:
    name = _UNWANTED.sub("", name)
    return name if name.strip() and len(name.encode("utf-8", "replace")) <= _MAX_NAME_BYTES else None
