"""What a page is called, what it is about, and by which of its words."""

import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from mediarepo.model.previews import Block, OEmbed, Page

Rule = tuple[str, str | None]
"""Where a value stands, and the value, uncleaned."""

_SUBSTANTIAL_CHARS, _ENOUGH_CHARS = 80, 300
_FILE_NAME = re.compile(r".*[^.]\.(?=[0-9]*[A-Za-z])[0-9A-Za-z]{1,8}", re.DOTALL)
_HEADING_RANKS = ("h1", "h2", "h3")


def titles(page: Page, oembed: OEmbed | None) -> Iterator[Rule]:
    """List a page's titles, the best first; the last one is made of the URL and is never empty."""
    yield "og:title", page.first("og:title")
    yield "twitter:title", page.first("twitter:title", "twitter:text:title")
    if oembed is not None:
        yield "oEmbed title", oembed.title
        yield "oEmbed author_name", oembed.author_name
    yield from (("JSON-LD headline or name", thing.title) for thing in page.things)
    yield "title", page.title
    yield "meta title", page.first("dc.title", "dcterms.title", "title", "itemprop:name", "itemprop:headline")
    for rank in _HEADING_RANKS:
        yield from ((rank, text) for heading, text in page.headings if heading == rank)
    yield from (("alt of an image", picture.alt) for picture in page.pictures[:1])
    yield "the URL", url_title(page.url)


def descriptions(page: Page, oembed: OEmbed | None) -> Iterator[Rule]:
    """List what a page says about its content, the best first."""
    yield "og:description", page.first("og:description")
    yield "twitter:description", page.first("twitter:description")
    yield from (("JSON-LD description", thing.description) for thing in page.things)
    yield "meta description", page.first("description", "dc.description", "dcterms.description", "itemprop:description")
    if oembed is not None:
        yield "oEmbed html", oembed.text
    yield "visible text", _visible(page.blocks)


def url_title(url: str) -> str:
    """Make a title of a URL: the file name, if it has one, or the host."""
    parts = urlsplit(url)
    name = unquote(parts.path.rpartition("/")[2], errors="replace")
    if _FILE_NAME.fullmatch(name):
        return name
    host = (parts.hostname or "").removeprefix("www.")
    return f"{host}{unquote(parts.path, errors='replace').rstrip('/')}"


def _visible(blocks: tuple[Block, ...]) -> str | None:
    """Choose the first substantial paragraph, better one of the article; else what there is of text, together."""
    for fits in (
        lambda block: block.is_paragraph and block.in_article,
        lambda block: block.is_paragraph,
        lambda block: block.in_article,
        lambda _: True,
    ):
        for block in blocks:
            if fits(block) and len(block.text) >= _SUBSTANTIAL_CHARS:
                return block.text
    best = [block for block in blocks if block.is_paragraph] or list(blocks)
    kept: list[str] = []
    for block in best:
        if sum(map(len, kept)) < _ENOUGH_CHARS:
            kept.append(block.text)
    return " ".join(kept) or None
