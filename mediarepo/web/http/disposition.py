"""Content-Disposition: inline or attachment, and the file name (RFC 6266, RFC 8187)."""

import re
import unicodedata
from urllib.parse import quote

INLINE_TYPES = frozenset(
    {
        "text/css",
        "text/plain",
        "text/csv",
        "application/json",
        "application/ld+json",
        "image/jpeg",
        "image/gif",
        "image/png",
        "image/apng",
        "image/webp",
        "image/avif",
        "video/mp4",
        "video/webm",
        "video/ogg",
        "video/quicktime",
        "audio/mp4",
        "audio/webm",
        "audio/aac",
        "audio/mpeg",
        "audio/ogg",
        "audio/wave",
        "audio/wav",
        "audio/x-wav",
        "audio/x-pn-wav",
        "audio/flac",
        "audio/x-flac",
    }
)
"""What a browser may show in place (client-server API, "Serving inline content")."""

_MEDIA_TYPE = re.compile(
    r"(TOKEN/TOKEN)(?:[ \t]*+;[ \t]*+(?:TOKEN=(?:TOKEN|\"[^\",\\]*+\"))?+)*+[ \t]*".replace(
        "TOKEN", r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
    ),
    re.ASCII,
)
"""One media type with its parameters; of a list, browsers may take the last."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_MAX_NAME_CHARS = 255
_MAX_FALLBACK_CHARS = 100
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]|[\"\\%/]")
_NOT_ENCODED = "!#$&+-.^_`|~"


def content_disposition(content_type: str, file_name: str | None) -> str:
    """Return the header: a plain token when the name is one, otherwise both forms, and no name when there is none.

    Clients that do not know `filename*` use the quoted `filename`, which has neither percent signs nor anything beyond
    ASCII (RFC 6266, appendix D).
    """
    kind = "inline" if _essence(content_type) in INLINE_TYPES else "attachment"
    if not file_name:
        return kind
    name = _shortened(file_name, _MAX_NAME_CHARS)
    if _TOKEN.fullmatch(name) and "%" not in name:
        return f"{kind}; filename={name}"
    encoded = quote(name.encode("utf-8", "replace"), safe=_NOT_ENCODED)
    return f"{kind}; filename=\"{_fallback(name)}\"; filename*=utf-8''{encoded}"


def _fallback(name: str) -> str:
    """Write a name in ASCII, without what quoted strings, paths or percent-encoding give a meaning to."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    return _shortened(_NOT_PLAIN.sub("_", plain), _MAX_FALLBACK_CHARS)


def _essence(content_type: str) -> str:
    """Read type and subtype; nothing when the value is not exactly one media type."""
    match = _MEDIA_TYPE.fullmatch(content_type.strip())
    return match[1].lower() if match is not None else ""


def _shortened(name: str, max_chars: int) -> str:
    """Cut a name down to what file systems take, keeping a short extension."""
    if len(name) <= max_chars:
        return name
    stem, dot, extension = name.rpartition(".")
    if dot and stem and len(extension) <= 16:  # noqa: PLR2004 - longer is no extension
        return f"{stem[: max_chars - len(extension) - 1]}.{extension}"
    return name[:max_chars]
