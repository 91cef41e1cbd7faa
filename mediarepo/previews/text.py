"""Titles, descriptions and visible text of a page."""

import html
import re
import unicodedata
from collections.abc import Iterator
from enum import IntEnum
from urllib.parse import unquote, urlsplit

from mediarepo.model.previews import Block, OEmbed, Page

_UNSEEN_TAGS = frozenset({"template", "svg", "math", "canvas", "object", "style", "script", "dialog", "datalist"})
_SILENT_TAGS = frozenset(
    {"noscript", "noframes", "iframe", "nav", "header", "footer", "aside", "button", "select", "textarea", "label",
     "title", "figcaption", "video", "audio", "menu", "address"}
)  # fmt: skip
_SILENT_ROLES = frozenset({"navigation", "banner", "contentinfo", "complementary", "search", "menu", "dialog", "alert"})
_UNSEEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SILENT_NAME = re.compile(
    r"(?:^|\s)(?:js-)?(?:cookies?|consent|gdpr|breadcrumbs?|sr-only|visually-hidden|screen-reader|skip|noprint|hatnote"
    r"|toc|infobox|byline|navbar|sidebar|newsletter)(?:$|[\s_-])",
    re.IGNORECASE,
)
_NEVER_BY_NAME = frozenset({"html", "body", "main", "article"})
_MAX_NAME_CHARS = 500


class Region(IntEnum):
    """How much is extracted from a part of a page; each value extracts less than the one before."""

    TEXT = 0
    HEADINGS = 1
    PICTURES = 2
    NOTHING = 3


def region_of(tag: str, attributes: dict[str, str]) -> Region:
    """Return the region of a tag by itself, wherever it is."""
    if tag in _UNSEEN_TAGS:
        return Region.NOTHING
    if attributes and _is_hidden(attributes) and tag not in {"html", "body"}:
        return Region.NOTHING
    if tag in _SILENT_TAGS:
        return Region.HEADINGS if tag == "header" else Region.PICTURES
    if attributes and tag not in _NEVER_BY_NAME and _is_silent(tag, attributes):
        return Region.PICTURES
    return Region.TEXT


def _is_hidden(attributes: dict[str, str]) -> bool:
    if "hidden" in attributes:
        return True
    style = attributes.get("style")
    return style is not None and _UNSEEN_STYLE.search(style[:_MAX_NAME_CHARS]) is not None


def _is_silent(tag: str, attributes: dict[str, str]) -> bool:
    if attributes.get("role") in _SILENT_ROLES or attributes.get("aria-hidden") == "true":
        return True
    if tag == "sup":
        return "reference" in attributes.get("class", "")
    name = f"{attributes.get('class', '')[:_MAX_NAME_CHARS]} {attributes.get('id', '')[:_MAX_NAME_CHARS]}"
    return name != " " and _SILENT_NAME.search(name) is not None


_RAW_FACTOR = 8
_MARKUP = re.compile(
    r"<!--.*?-->|<(script|style)\b[^<>]*>[^<]*(?:</\1\s*>)?|<[/!?]?[A-Za-z][^<>]*>", re.DOTALL | re.IGNORECASE
)
_TAG_OPENING = re.compile(r"<(?=[/!?A-Za-z])")
_MAX_ROUNDS = 3
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f"  # controls that are no blanks
    "\u00ad\u180e\u200b\u2060-\u2064\ufeff"  # without width
    "\u202a-\u202e\u2066-\u206f"  # directions that reach beyond the text
    "\ud800-\udfff\ufff9-\ufffb\ufffe\uffff"  # no characters at all
    "\U000e0000-\U000e007f]"  # tags that nobody sees
)
_MARKS_IN_A_ROW = re.compile(
    r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
_BLANKS = re.compile(r"\s+")
_SEEN = re.compile(r"[^\W_]|[^\w\s\u200c-\u200f\u061c\ufe00-\ufe0f\ufffd]")
_ELLIPSIS = "…"
_SHORTEST_PART = 0.6
_JOINS = ("\u200d", "\ufe0e", "\ufe0f")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)


def to_plain_text(text: str | None, max_chars: int) -> str | None:
    """Return one line of at most `max_chars` characters of a page's text; None when nothing is visible.

    Markup is removed, double-escaped markup too.
    """
    if text is None:
        return None
    words = _without_markup(text[: max_chars * _RAW_FACTOR + 1024])
    words = _BLANKS.sub(" ", _MARKS_IN_A_ROW.sub(r"\1", words)).strip()
    return cut_at_word(words, max_chars) if _SEEN.search(words) else None


def _without_markup(text: str) -> str:
    text = html.unescape(_without_tags(text))
    return _TAG_OPENING.sub("< ", _without_tags(text))


def _without_tags(text: str) -> str:
    """Take tags out, after what is invisible: else there could be tags again once that is gone."""
    text = _INVISIBLE.sub("", text)
    for _ in range(_MAX_ROUNDS):
        before, text = text, _MARKUP.sub(" ", text)
        if text == before:
            break
    return text


def cut_at_word(text: str, max_chars: int) -> str:
    """Shorten a line at the end of a word, or of a grapheme, and add an ellipsis."""
    if len(text) <= max_chars:
        return text
    end = max_chars - len(_ELLIPSIS)
    blank = text.rfind(" ", 0, end + 1)
    if blank >= end * _SHORTEST_PART:
        end = blank
    while end > 0 and _joined(text, end):
        end -= 1
    return text[:end].rstrip(" ,;:-(\u2013\u2014") + _ELLIPSIS


def _joined(text: str, end: int) -> bool:
    """Tell whether a cut before `end` would tear something apart."""
    after, before = text[end], text[end - 1]
    if after in _JOINS or before == "\u200d" or unicodedata.combining(after) or ord(after) in _SKIN_TONES:
        return True
    letters = 0
    while letters < end and ord(text[end - 1 - letters]) in _FLAG_LETTERS:
        letters += 1
    return ord(after) in _FLAG_LETTERS and letters % 2 == 1


Rule = tuple[str, str | None]
"""Where a value stands, and the value, uncleaned."""

_SUBSTANTIAL_CHARS, _ENOUGH_CHARS = 80, 300
_FILE_NAME = re.compile(r".*[^.]\.(?=[0-9]*[A-Za-z])[0-9A-Za-z]{1,8}", re.DOTALL)
_HEADING_RANKS = ("h1", "h2", "h3")


def titles(page: Page, oembed: OEmbed | None) -> Iterator[Rule]:
    """Return a page's titles, best first; the last one comes from the URL and is never empty."""
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
    """Return a page's descriptions, best first."""
    yield "og:description", page.first("og:description")
    yield "twitter:description", page.first("twitter:description")
    yield from (("JSON-LD description", thing.description) for thing in page.things)
    yield "meta description", page.first("description", "dc.description", "dcterms.description", "itemprop:description")
    if oembed is not None:
        yield "oEmbed html", oembed.text
    yield "visible text", _visible(page.blocks)


def url_title(url: str) -> str:
    """Return a title made from a URL: the file name, if there is one, or the host."""
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
