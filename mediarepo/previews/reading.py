"""From an answer's bytes to what the page says."""

from dataclasses import replace

from mediarepo.model.previews import Block, Page
from mediarepo.previews.collecting import Collector
from mediarepo.previews.decoding import decode
from mediarepo.previews.feeds import read_feed
from mediarepo.previews.kinds import Kind, kind_of
from mediarepo.previews.linked_data import read_linked_data
from mediarepo.previews.parsing import hear_html
from mediarepo.previews.pictures import likeliest_first

_MAX_PAGE_BYTES = 2 * 1024 * 1024
_MAX_TEXT_CHARS = 4_000
_MAX_OEMBED_URLS = 4


def read_page(body: bytes, *, url: str, content_type: str | None, max_bytes: int = _MAX_PAGE_BYTES) -> Page | None:
    """Read a page whose Content-Encoding is undone already; None for what is no page, for `compose_file`.

    `url` is where the answer came from, after redirects. Bytes beyond `max_bytes` are left out. Never fails.
    """
    body = body[:max_bytes]
    text, encoding = decode(body, content_type)
    match kind_of(content_type, body, text):
        case Kind.HTML:
            page = read_html(text, url)
        case Kind.FEED:
            page = read_feed(text, url)
        case Kind.TEXT:
            page = _plain_text(text, url)
        case Kind.FILE:
            return None
    return replace(page, encoding=encoding)


def read_html(text: str, url: str) -> Page:
    """Read a page's text."""
    heard = Collector(url)
    hear_html(text, heard)
    return Page(
        url=url,
        base_url=heard.base_url,
        language=heard.language,
        title=heard.title,
        canonical_url=heard.canonical_url,
        refresh_url=heard.refresh_url,
        headings=tuple(heard.headings),
        meta=tuple(heard.meta),
        pictures=tuple(likeliest_first(heard.pictures, heard.article_pictures)),
        icon_urls=frozenset(heard.icon_urls),
        blocks=heard.blocks.finish(),
        linked_data=read_linked_data(heard.scripts),
        oembed_urls=tuple(dict.fromkeys(heard.oembed_urls))[:_MAX_OEMBED_URLS],
    )


def _plain_text(text: str, url: str) -> Page:
    paragraphs = text[:_MAX_TEXT_CHARS].strip()
    block = Block(" ".join(paragraphs.split()), is_paragraph=True, in_article=True)
    return Page(url=url, base_url=url, blocks=(block,) if paragraphs else ())
