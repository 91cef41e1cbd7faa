"""Which answers are pages, and which are files."""

import re
from enum import StrEnum

_HTML = frozenset({"text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"})
_XML = frozenset({"application/xml", "text/xml"})
_FEEDS = frozenset({"application/rss+xml", "application/atom+xml", "application/rdf+xml", "application/feed+xml"})
_TEXT = frozenset({"text/plain", "text/markdown", "text/x-markdown", "text/gemini"})
_PROLOGUE = re.compile(r"\s*(?:<!--.*?-->|<\?xml\b[^>]*>)", re.IGNORECASE | re.DOTALL)
_HTML_TAG = re.compile(
    r"\s*<(?:!doctype\s+html|html|head|body|title|meta|h1|div|p|a|script|table|frameset)\b", re.IGNORECASE
)
_LOOKS_LIKE_FEED = re.compile(r"<(?:rss|feed|rdf:RDF)\b")
_FIRST_CHARS = 2048
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\x1b"})
_MOST_CONTROLS = 0.05


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


def kind_of(content_type: str | None, body: bytes, text: str) -> Kind:
    """Judge a body and the text that was read of it: by the declared type, and by how it begins where that says little.

    What is declared to be text, but consists of controls, is a file.
    """
    kind, first = essence(content_type), text[:_FIRST_CHARS]
    if _is_binary(body) and not _looks_like_html(first):
        return Kind.FILE
    if kind in _HTML:
        return Kind.HTML
    if kind in _TEXT:
        return Kind.TEXT
    if kind and not may_be_page(content_type):
        return Kind.FILE
    if kind in _FEEDS or _LOOKS_LIKE_FEED.search(first):
        return Kind.FEED
    return Kind.HTML if _looks_like_html(first) else Kind.FILE


def _looks_like_html(first: str) -> bool:
    """Tell whether a text begins with a tag of HTML; comments before it are passed over one by one."""
    at = 0
    while passed := _PROLOGUE.match(first, at):
        at = passed.end()
    return _HTML_TAG.match(first, at) is not None


def _is_binary(body: bytes) -> bool:
    first = body[:_FIRST_CHARS]
    controls = len(first) - len(first.translate(None, _CONTROLS))
    return not first.startswith(_WIDE) and controls > len(first) * _MOST_CONTROLS
