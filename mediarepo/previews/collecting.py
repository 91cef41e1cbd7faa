"""What a page says, gathered while it is read aloud."""

import re
from collections.abc import Callable

from mediarepo.model.previews import Picture
from mediarepo.previews.blocks import Blocks
from mediarepo.previews.pictures import picture_of
from mediarepo.previews.refreshes import parse_refresh
from mediarepo.previews.regions import Region, region_of
from mediarepo.previews.urls import resolved

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
    """Hears a page; everything it keeps is bounded."""

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
        """Hear a start tag."""
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
        """Hear an end tag."""
        if self._sink is not None and tag == self._sink_tag:
            self._heard_all("".join(self._sink))
        region = self._regions.pop()
        if region == Region.TEXT:
            self.blocks.end(tag)

    def data(self, text: str) -> None:
        """Hear text."""
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
        href = None if self._has_base else resolved(self.base_url, attributes.get("href"))
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
            self.refresh_url = resolved(self.base_url, parse_refresh(content))

    def _link(self, attributes: dict[str, str]) -> None:
        relations = attributes.get("rel", "").lower().split()[:_MAX_NAMES]
        self._links += bool(relations)
        href = resolved(self.base_url, attributes.get("href")) if relations and self._links < _MAX_LINKS else None
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
            self._keep(picture_of(attributes, self.base_url, "img"))

    def _source(self, attributes: dict[str, str]) -> None:
        is_shown = attributes.get("type", "").lower() not in _RARE_FORMATS
        if is_shown and ("srcset" in attributes or "data-srcset" in attributes):
            self._image(attributes)

    def _poster(self, attributes: dict[str, str]) -> None:
        if "poster" in attributes and len(self.pictures) < _MAX_PICTURES:
            self._keep(picture_of({"src": attributes["poster"]}, self.base_url, "poster of a video"))

    def _keep(self, picture: Picture | None) -> None:
        if picture is None or len(self.pictures) >= _MAX_PICTURES:
            return
        self.pictures.append(picture)
        if self.blocks.in_article:
            self.article_pictures.add(picture.url)


def _words(attributes: dict[str, str], name: str) -> list[str]:
    return attributes.get(name, "").lower()[:200].split()[:_MAX_NAMES]
