"""Builds the preview of a page or a file (client-server API, GET preview_url)."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from mediarepo.model.previews import OEmbed, Page, Picture, Preview, PreviewLimits
from mediarepo.previews.image_candidates import image_candidates
from mediarepo.previews.page import media_type_essence
from mediarepo.previews.text import Rule, descriptions, titles, to_plain_text, url_title
from mediarepo.previews.url_policy import resolve_url

_PASSED_ON = (
    "og:locale",
    "article:published_time",
    "article:modified_time",
    "article:author",
    "article:section",
    "profile:first_name",
    "profile:last_name",
    "profile:username",
    "product:price:amount",
    "product:price:currency",
    "video:duration",
    "music:duration",
)
"""Further properties that are given as they are, once; those that hold addresses of media never are."""
_TYPES = {
    "product": "product",
    "productgroup": "product",
    "videoobject": "video.other",
    "movie": "video.movie",
    "tvepisode": "video.episode",
    "musicrecording": "music.song",
    "musicalbum": "music.album",
    "book": "book",
    "person": "profile",
    "profilepage": "profile",
}
_WHOLE_URL = re.compile(r"https?://(?:[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=-]|%[0-9A-Fa-f]{2})+", re.IGNORECASE | re.ASCII)
_OEMBED_TYPES = {"video": "video.other"}
_ADDRESSES = ("http:", "https:", "//", "data:", "javascript:", "blob:", "mxc:", "file:")


def compose(page: Page, *, oembed: OEmbed | None = None, limits: PreviewLimits | None = None) -> Preview:
    """Choose for each field the best value of a page and its oEmbed response; Open Graph first, visible text last.

    `Page(url=...)` stands for a page that could not be read, when only oEmbed answered.
    """
    limits = limits or PreviewLimits()
    title_rule, title = _first(titles(page, oembed), limits.max_title_chars)
    chosen = {
        "og:title": (title_rule, title),
        "og:description": _first(_other_than(title, descriptions(page, oembed)), limits.max_description_chars),
        "og:url": _url(page, limits),
        "og:type": _first(_types(page, oembed), limits.max_value_chars),
        "og:site_name": _first(_site_names(page, oembed), limits.max_value_chars),
        **{name: _first(_further(name, page, oembed), limits.max_value_chars) for name in _PASSED_ON},
    }
    return Preview(
        values={name: value for name, (_, value) in chosen.items() if value is not None},
        rules={name: rule for name, (rule, value) in chosen.items() if value is not None},
        pictures=image_candidates(page, oembed, limits.max_images),
    )


def _first(rules: Iterable[Rule], max_chars: int) -> Rule:
    for rule, value in rules:
        text = to_plain_text(value, max_chars)
        if text is not None:
            return rule, text
    return "", None


def _other_than(title: str | None, rules: Iterable[Rule]) -> Iterator[Rule]:
    """Leave out descriptions that only repeat the title."""
    for rule, value in rules:
        if value is not None and to_plain_text(value, len(value) or 1) != title:
            yield rule, value


def _url(page: Page, limits: PreviewLimits) -> Rule:
    """Find the page's own address; kept letter by letter when it is a whole one."""
    given = (page.first("og:url") or "").strip()
    found = resolve_url(page.url, given)
    if found is not None and len(found) <= limits.max_url_chars:
        return "og:url", given if _WHOLE_URL.fullmatch(given) else found
    if page.canonical_url is not None and urlsplit(page.canonical_url).hostname == urlsplit(page.url).hostname:
        return "link rel=canonical", page.canonical_url[: limits.max_url_chars]
    return "the URL", page.url[: limits.max_url_chars]


def _types(page: Page, oembed: OEmbed | None) -> Iterator[Rule]:
    yield "og:type", page.first("og:type")
    if oembed is not None:
        yield "oEmbed type", _OEMBED_TYPES.get(oembed.type)
    for thing in page.things:
        kind = thing.type
        is_article = kind.endswith(("article", "posting")) and kind != "jobposting"
        yield "JSON-LD type", "article" if is_article else _TYPES.get(kind)


def _site_names(page: Page, oembed: OEmbed | None) -> Iterator[Rule]:
    yield "og:site_name", page.first("og:site_name")
    if oembed is not None:
        yield "oEmbed provider_name", oembed.provider_name
    yield "application-name", page.first("application-name")
    yield from (("JSON-LD publisher", thing.publisher) for thing in page.linked_data)
    yield from (("JSON-LD name of the site", thing.title) for thing in page.linked_data if thing.is_site)


def _further(name: str, page: Page, oembed: OEmbed | None) -> Iterator[Rule]:
    yield name, _unless_address(page.first(name))
    if name == "article:author":
        yield from (("JSON-LD author", thing.author) for thing in page.things)
        yield "meta author", _unless_address(page.first("author"))
        yield "oEmbed author_name", oembed.author_name if oembed is not None else None
    elif name == "article:published_time":
        yield from (("JSON-LD datePublished", thing.published) for thing in page.things)
    elif name == "article:modified_time":
        yield from (("JSON-LD dateModified", thing.modified) for thing in page.things)


def _unless_address(value: str | None) -> str | None:
    return None if value is None or value.strip().lower().startswith(_ADDRESSES) else value


_FILE_TYPES = {"video": "video.other", "audio": "music.song"}
_DRAWINGS = frozenset({"image/svg+xml", "image/x-icon", "image/vnd.microsoft.icon"})


def compose_file(
    *, url: str, content_type: str | None, upload_name: str | None, limits: PreviewLimits | None = None
) -> Preview:
    """Preview a file by its name and headers; an image is its own picture."""
    limits = limits or PreviewLimits()
    kind = media_type_essence(content_type)
    named = to_plain_text(upload_name, limits.max_title_chars)
    chosen = {
        "og:title": ("file name", named)
        if named
        else ("the URL", to_plain_text(url_title(url), limits.max_title_chars)),
        "og:url": ("the URL", url[: limits.max_url_chars]),
        "og:type": ("content type", _FILE_TYPES.get(kind.partition("/")[0])),
    }
    is_image = kind.startswith("image/") and kind not in _DRAWINGS and limits.max_images > 0
    return Preview(
        values={name: value for name, (_, value) in chosen.items() if value is not None},
        rules={name: rule for name, (rule, value) in chosen.items() if value is not None},
        pictures=(Picture(url=url, rule="the file itself"),) if is_image else (),
    )
