"""Parses HTML and XML as a stream of events, and extracts what previews need."""

import re
from collections.abc import Callable
from typing import Protocol

from lxml import etree

from mediarepo.model.previews import Block, Picture
from mediarepo.previews.image_candidates import image_candidate
from mediarepo.previews.text import Region, region_of
from mediarepo.previews.url_policy import resolve_url

_MAX_REFRESH_CHARS = 8192
_MAX_REFRESH_S = 10
_TIME = re.compile(r"\s*(?:([0-9]{1,9})|(?=\.))[0-9.]*(?:\s+|\s*(?=[;,])|\Z)")
_URL = re.compile(r"[;,]?\s*(?:url\s*=\s*)?", re.IGNORECASE)


def parse_refresh(text: str) -> str | None:
    """Return the URL reference of a soon refresh, as written; None when there is none, or only a late one."""
    text = text[:_MAX_REFRESH_CHARS]
    time = _TIME.match(text)
    if time is None or int(time[1] or 0) > _MAX_REFRESH_S:
        return None
    begin = _URL.match(text, time.end())
    reference = text[begin.end() if begin else time.end() :]
    if reference[:1] in {'"', "'"}:
        reference = reference[1:].partition(reference[0])[0]
    return reference.strip() or None


_CHUNK_CHARS = 16_384
_MAX_DEPTH = 300
_MAX_EVENTS = 150_000
_MAX_XML_CHARS = 1_000_000


class MarkupHandler(Protocol):
    """Receives the events of a page, to its end or as far as it is parsed."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Handle a start tag, names in lower case; its `end` always follows."""

    def end(self, tag: str) -> None:
        """Handle an end tag."""

    def data(self, text: str) -> None:
        """Handle text, in pieces of any size."""


class _Counting:
    """Passes events on until there are too many of them, or too many tags inside one another; then never again."""

    def __init__(self, listener: MarkupHandler) -> None:
        self.enough = False
        self._listener = listener
        self._depth = 0
        self._events = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count()
        if not self.enough:
            self._listener.start(tag, attributes)

    def end(self, tag: str) -> None:
        self._count()
        if self._depth > 0 and not self.enough:
            self._depth -= 1
            self._listener.end(tag)

    def data(self, text: str) -> None:
        self._count()
        if not self.enough:
            self._listener.data(text)

    def close(self) -> None:
        """End, as lxml wants its targets to have it."""

    def _count(self) -> None:
        self._events += 1
        self.enough = self.enough or self._events > _MAX_EVENTS or self._depth > _MAX_DEPTH


def parse_html(text: str, listener: MarkupHandler) -> None:
    """Parse a page, as far as it is useful, and send its events to a handler; never fails."""
    counting = _Counting(listener)
    parser = etree.HTMLParser(target=counting, encoding="utf-8")
    try:
        for begin in range(0, len(text), _CHUNK_CHARS):
            parser.feed(text[begin : begin + _CHUNK_CHARS].encode("utf-8", "replace"))
            if counting.enough:
                break
        parser.close()
    except etree.LxmlError:
        return


def parse_xml(text: str) -> etree._Element | None:
    """Parse a small XML document; None when it is not XML, too large, or declares entities."""
    if len(text) > _MAX_XML_CHARS or "<!ENTITY" in text:
        return None
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=True,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.LxmlError, ValueError):
        return None


_BLOCK_TAGS = frozenset(
    {"p", "div", "section", "article", "main", "body", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr", "td", "th",
     "tbody", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "hr", "figure", "center", "fieldset", "details",
     "summary", "form", "header", "footer", "nav", "aside", "html", "head", "caption", "frameset"}
)  # fmt: skip
_HEADING_TAGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_MAX_BLOCKS = 200
_MAX_CHARS = 40_000
_MAX_BLOCK_CHARS = 4_000
_MOST_LINKS = 0.5


class Blocks:
    """Collects text blocks other than headings; blocks that are mostly links are menus, and left out."""

    def __init__(self) -> None:
        self.gathered: list[Block] = []
        self._pieces: list[str] = []
        self._chars = 0
        self._link_chars = 0
        self._total_chars = 0
        self._in_paragraph = False
        self._links = 0
        self._articles = 0
        self._tables = 0
        self._headings = 0

    @property
    def in_article(self) -> bool:
        """Whether the parser is in the main content."""
        return self._articles > 0

    def start(self, tag: str) -> None:
        """Handle the start tag of a visible element."""
        self._border(tag)
        self._in_paragraph = self._in_paragraph or (tag == "p" and self._tables == 0)
        self._count(tag, 1)

    def end(self, tag: str) -> None:
        """Handle the end tag of an element that `start` was called for."""
        self._border(tag)
        self._in_paragraph = self._in_paragraph and tag != "p"
        self._count(tag, -1)

    def text(self, text: str) -> None:
        """Handle visible text."""
        if self._headings or self._chars > _MAX_BLOCK_CHARS:
            return
        self._pieces.append(text[:_MAX_BLOCK_CHARS])
        self._chars += min(len(text), _MAX_BLOCK_CHARS)
        if self._links:
            self._link_chars += len(text)

    def finish(self) -> tuple[Block, ...]:
        """Return the blocks, in the order of the page."""
        self._flush()
        return tuple(self.gathered)

    def _count(self, tag: str, step: int) -> None:
        if tag == "a":
            self._links += step
        elif tag in {"article", "main"}:
            self._articles += step
        elif tag == "table":
            self._tables += step
        elif tag in _HEADING_TAGS:
            self._headings += step

    def _border(self, tag: str) -> None:
        if tag in _BLOCK_TAGS:
            self._flush()
        elif tag == "br":
            self._pieces.append(" ")

    def _flush(self) -> None:
        text = " ".join("".join(self._pieces).split())
        is_menu = self._link_chars > _MOST_LINKS * self._chars
        if text and not is_menu and len(self.gathered) < _MAX_BLOCKS and self._total_chars < _MAX_CHARS:
            self.gathered.append(Block(text, is_paragraph=self._in_paragraph, in_article=self.in_article))
            self._total_chars += len(text)
        self._pieces.clear()
        self._chars = self._link_chars = 0


_META_NAME = re.compile(
    r"(?:og|article|profile|product|book|music|video|twitter|dc|dcterms|itemprop)[:.][a-z0-9_:.-]{1,60}"
    r"|description|author|application-name|title"
)
_MAX_META, _MAX_VALUE_CHARS, _MAX_NAMES = 300, 8192, 4
_MAX_HEADINGS, _MAX_PICTURES, _MAX_LINKS = 20, 40, 500
_MAX_TITLE_CHARS, _MAX_SCRIPT_CHARS, _MAX_SCRIPTS = 8192, 400_000, 20
_OEMBED_TYPES = frozenset({"application/json+oembed", "text/xml+oembed", "application/xml+oembed"})
_RARE_FORMATS = frozenset({"image/avif", "image/jxl", "image/svg+xml"})
_HEADINGS = ("h1", "h2", "h3")


class Collector:
    """Extracts what previews need from a page; everything it keeps is bounded."""

    def __init__(self, url: str) -> None:
        self.base_url = url
        self.language: str | None = None
        self.title: str | None = None
        self.canonical_url: str | None = None
        self.refresh_url: str | None = None
        self.headings: list[tuple[str, str]] = []
        self.meta: list[tuple[str, str]] = []
        self.pictures: list[Picture] = []
        self.article_pictures: set[str] = set()
        self.icon_urls: set[str] = set()
        self.scripts: list[str] = []
        self.oembed_urls: list[str] = []
        self.blocks = Blocks()
        self._regions = [Region.TEXT]
        self._sink: list[str] | None = None
        self._sink_chars = 0
        self._sink_tag = ""
        self._has_base = False
        self._links = 0
        self._heard: dict[str, Callable[[dict[str, str]], None]] = {
            "html": self._html,
            "base": self._base,
            "meta": self._meta,
            "link": self._link,
            "img": self._image,
            "amp-img": self._image,
            "source": self._source,
            "video": self._poster,
        }

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Handle a start tag."""
        outer = self._regions[-1]
        region = max(outer, region_of(tag, attributes))
        self._regions.append(region)
        if tag == "script":
            self._script(attributes)
        if region == Region.TEXT:
            self.blocks.start(tag)
        if region == Region.NOTHING:
            return
        if tag in self._heard:
            self._heard[tag](attributes)
        elif (tag == "title" and self.title is None) or (tag in _HEADINGS and region <= Region.HEADINGS):
            self._listen(tag)

    def end(self, tag: str) -> None:
        """Handle an end tag."""
        if self._sink is not None and tag == self._sink_tag:
            self._heard_all("".join(self._sink))
        region = self._regions.pop()
        if region == Region.TEXT:
            self.blocks.end(tag)

    def data(self, text: str) -> None:
        """Handle text."""
        if self._sink is not None and self._sink_chars < _MAX_SCRIPT_CHARS:
            self._sink.append(text)
            self._sink_chars += len(text)
        if self._regions[-1] == Region.TEXT:
            self.blocks.text(text)

    def _listen(self, tag: str) -> None:
        if self._sink is None:
            self._sink, self._sink_tag, self._sink_chars = [], tag, 0

    def _heard_all(self, text: str) -> None:
        tag = self._sink_tag
        self._sink, self._sink_tag = None, ""
        if tag == "script" and self._sink_chars < _MAX_SCRIPT_CHARS:
            self.scripts.append(text)
        elif tag == "title":
            self.title = text[:_MAX_TITLE_CHARS] if text.strip() else None
        elif tag in _HEADINGS and text.strip() and len(self.headings) < _MAX_HEADINGS:
            self.headings.append((tag, text[:_MAX_TITLE_CHARS]))

    def _script(self, attributes: dict[str, str]) -> None:
        kind = attributes.get("type", "").partition(";")[0].strip().lower()
        if kind == "application/ld+json" and len(self.scripts) < _MAX_SCRIPTS:
            self._listen("script")

    def _html(self, attributes: dict[str, str]) -> None:
        self.language = self.language or attributes.get("lang") or attributes.get("xml:lang")

    def _base(self, attributes: dict[str, str]) -> None:
        href = None if self._has_base else resolve_url(self.base_url, attributes.get("href"))
        if href is not None:
            self.base_url, self._has_base = href, True

    def _meta(self, attributes: dict[str, str]) -> None:
        content = attributes.get("content") or attributes.get("value")
        if not content:
            return
        if attributes.get("http-equiv", "").strip().lower() == "refresh":
            self._refresh(content)
        names = [*_words(attributes, "property"), *_words(attributes, "name")]
        names += [f"itemprop:{name}" for name in _words(attributes, "itemprop")]
        for name in dict.fromkeys(names):
            if _META_NAME.fullmatch(name) and len(self.meta) < _MAX_META:
                self.meta.append((name, content[:_MAX_VALUE_CHARS]))

    def _refresh(self, content: str) -> None:
        if self.refresh_url is None:
            self.refresh_url = resolve_url(self.base_url, parse_refresh(content))

    def _link(self, attributes: dict[str, str]) -> None:
        relations = attributes.get("rel", "").lower().split()[:_MAX_NAMES]
        self._links += bool(relations)
        href = resolve_url(self.base_url, attributes.get("href")) if relations and self._links < _MAX_LINKS else None
        if href is None:
            return
        kind = attributes.get("type", "").partition(";")[0].strip().lower()
        if "canonical" in relations:
            self.canonical_url = self.canonical_url or href
        elif "alternate" in relations and kind in _OEMBED_TYPES:
            self.oembed_urls.append(href)
        elif "image_src" in relations:
            self._keep(Picture(url=href, rule="link rel=image_src"))
        elif any("icon" in relation for relation in relations):
            self.icon_urls.add(href)

    def _image(self, attributes: dict[str, str]) -> None:
        if len(self.pictures) < _MAX_PICTURES:
            self._keep(image_candidate(attributes, self.base_url, "img"))

    def _source(self, attributes: dict[str, str]) -> None:
        is_shown = attributes.get("type", "").lower() not in _RARE_FORMATS
        if is_shown and ("srcset" in attributes or "data-srcset" in attributes):
            self._image(attributes)

    def _poster(self, attributes: dict[str, str]) -> None:
        if "poster" in attributes and len(self.pictures) < _MAX_PICTURES:
            self._keep(image_candidate({"src": attributes["poster"]}, self.base_url, "poster of a video"))

    def _keep(self, picture: Picture | None) -> None:
        if picture is None or len(self.pictures) >= _MAX_PICTURES:
            return
        self.pictures.append(picture)
        if self.blocks.in_article:
            self.article_pictures.add(picture.url)


def _words(attributes: dict[str, str], name: str) -> list[str]:
    return attributes.get(name, "").lower()[:200].split()[:_MAX_NAMES]
