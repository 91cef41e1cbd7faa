"""Exceptions as logs may show them: without the requests that they belong to, whose headers hold tokens."""

_MAX_CHARS = 500


def error_text(error: BaseException) -> str:
    """Describe an exception by its class and its words, cut.

    HTTP clients' exceptions carry the whole request; their representation shows its URL and its headers.
    """
    name = type(error).__name__
    if hasattr(error, "request_info"):
        words = " ".join(str(getattr(error, one, "")) for one in ("status", "message")).strip()
        return f"{name}({words!r})"[:_MAX_CHARS]
    return repr(error)[:_MAX_CHARS]
