"""Reads a response: is it a page or a file, and what does it say."""

import re
from dataclasses import replace
from enum import StrEnum

from mediarepo.config.previews import PreviewsConfig
from mediarepo.config.reload import Derived
from mediarepo.model.previews import Block, Page
from mediarepo.previews.encoding import decode
from mediarepo.previews.html import Collector, parse_html
from mediarepo.previews.image_candidates import sort_by_likelihood
from mediarepo.previews.structured_data import read_feed, read_linked_data
from mediarepo.previews.url_policy import compile_host_pattern

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


class ContentKind(StrEnum):
    """How a response is parsed."""

    HTML = "html"
    FEED = "feed"
    TEXT = "text"
    FILE = "file"


def media_type_essence(content_type: str | None) -> str:
    """Return a content type without parameters; "" when there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def is_page_type(content_type: str | None) -> bool:
    """Return whether the headers promise a page, whose body is worth reading; otherwise use `compose_file`."""
    kind = media_type_essence(content_type)
    return kind in _HTML | _XML | _FEEDS | _TEXT | {""} or (kind.endswith("+xml") and kind != "image/svg+xml")


def content_kind(content_type: str | None, body: bytes, text: str) -> ContentKind:
    """Return the kind by the declared type, and by the first bytes where that says little.

    Declared text that consists of control characters is a file.
    """
    kind, first = media_type_essence(content_type), text[:_FIRST_CHARS]
    if _is_binary(body) and not _looks_like_html(first):
        return ContentKind.FILE
    if kind in _HTML:
        return ContentKind.HTML
    if kind in _TEXT:
        return ContentKind.TEXT
    if kind and not is_page_type(content_type):
        return ContentKind.FILE
    if kind in _FEEDS or _LOOKS_LIKE_FEED.search(first):
        return ContentKind.FEED
    return ContentKind.HTML if _looks_like_html(first) else ContentKind.FILE


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


class RequestHeaders:
    """Request headers by host; look them up again after each redirect to another host."""

    def __init__(self, config: PreviewsConfig) -> None:
        self._config = config
        self._domains = Derived(
            lambda: config.domains, lambda domains: [(compile_host_pattern(domain.host), domain) for domain in domains]
        )

    def of(self, host: str) -> dict[str, str]:
        """Return the headers for a host."""
        usual = {"User-Agent": self._config.user_agent, "Accept-Language": self._config.accept_language}
        for fits, domain in self._domains():
            if fits(host):
                ours = {"User-Agent": domain.user_agent, "Accept-Language": domain.accept_language}
                chosen = {name: value for name, value in ours.items() if value is not None}
                return _merged(_merged(usual, chosen), domain.headers)
        return usual


def _merged(headers: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    replaced = {name.lower() for name in others}
    return {name: value for name, value in headers.items() if name.lower() not in replaced} | others


_MAX_PAGE_BYTES = 2 * 1024 * 1024
_MAX_TEXT_CHARS = 4_000
_MAX_OEMBED_URLS = 4


def read_page(body: bytes, *, url: str, content_type: str | None, max_bytes: int = _MAX_PAGE_BYTES) -> Page | None:
    """Parse a page whose Content-Encoding is decoded; None when it is no page, for `compose_file`.

    `url` is the final URL after redirects. Bytes beyond `max_bytes` are ignored. Never fails.
    """
    body = body[:max_bytes]
    text, encoding = decode(body, content_type)
    match content_kind(content_type, body, text):
        case ContentKind.HTML:
            page = read_html(text, url)
        case ContentKind.FEED:
            page = read_feed(text, url)
        case ContentKind.TEXT:
            page = _plain_text(text, url)
        case ContentKind.FILE:
            return None
    return replace(page, encoding=encoding)


def read_html(text: str, url: str) -> Page:
    """Parse a page's text."""
    heard = Collector(url)
    parse_html(text, heard)
    return Page(
        url=url,
        base_url=heard.base_url,
        language=heard.language,
        title=heard.title,
        canonical_url=heard.canonical_url,
        refresh_url=heard.refresh_url,
        headings=tuple(heard.headings),
        meta=tuple(heard.meta),
        pictures=tuple(sort_by_likelihood(heard.pictures, heard.article_pictures)),
        icon_urls=frozenset(heard.icon_urls),
        blocks=heard.blocks.finish(),
        linked_data=read_linked_data(heard.scripts),
        oembed_urls=tuple(dict.fromkeys(heard.oembed_urls))[:_MAX_OEMBED_URLS],
    )


def _plain_text(text: str, url: str) -> Page:
    paragraphs = text[:_MAX_TEXT_CHARS].strip()
    block = Block(" ".join(paragraphs.split()), is_paragraph=True, in_article=True)
    return Page(url=url, base_url=url, blocks=(block,) if paragraphs else ())
