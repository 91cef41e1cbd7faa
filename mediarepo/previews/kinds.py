"""Which answers are pages, and which are files."""

import re
from enum import StrEnum

_HTML = frozenset({"text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"})
_XML = frozenset({"application/xml", "text/xml"})
_FEEDS = frozenset({"application/rss+xml", "application/atom+xml", "application/rdf+xml", "application/feed+xml"})
_TEXT = frozenset({"text/plain", "text/markdown", "text/x-markdown", "text/gemini"})
_LOOKS_LIKE_HTML = re.compile(
    r"\s*(?:<!--.*?-->\s*|<\?xml\b[^>]*>\s*)*+<(?:!doctype\s+html|html|head|body|title|meta|h1|div|p|a|script|table|frameset)\b",
    re.IGNORECASE | re.DOTALL,
)
_LOOKS_LIKE_FEED = re.compile(r"<(?:rss|feed|rdf:RDF)\b")
_FIRST_CHARS = 2048


class Kind(StrEnum):
    """What an answer is read as."""

    HTML = "html"
    FEED = "feed"
    TEXT = "text"
    FILE = "file"


def essence(content_type: str | None) -> str:
    """Cut the parameters off a content type; "" when there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def may_be_page(content_type: str | None) -> bool:
    """Tell from the headers whether the body is worth reading for a preview; else `compose_file` is all there is."""
    kind = essence(content_type)
    return kind in _HTML | _XML | _FEEDS | _TEXT | {""} or (kind.endswith("+xml") and kind != "image/svg+xml")


def kind_of(content_type: str | None, text: str) -> Kind:
    """Judge a body that was read, by its declared type, and by its beginning where that leaves it open."""
    kind, first = essence(content_type), text[:_FIRST_CHARS]
    if kind in _HTML:
        return Kind.HTML
    if kind in _TEXT:
        return Kind.TEXT
    if kind and not may_be_page(content_type):
        return Kind.FILE
    if kind in _FEEDS or _LOOKS_LIKE_FEED.search(first):
        return Kind.FEED
    return Kind.HTML if _LOOKS_LIKE_HTML.match(first) else Kind.FILE
