"""The images that may stand for a page, in the order in which they are worth trying."""

import re
from collections.abc import Iterator
from dataclasses import replace

from mediarepo.model.previews import OEmbed, Page, Picture
from mediarepo.previews.pictures import is_decoration, is_too_small, number
from mediarepo.previews.text import plain
from mediarepo.previews.urls import resolved

_OG_URLS = frozenset({"og:image", "og:image:url"})
_TWITTER = ("twitter:image", "twitter:image:src", "twitter:image0")
_NO_PICTURE = re.compile(r"\.(?:ico|svgz?)$|/favicon[^/]*$", re.IGNORECASE)
_NO_BITMAP = (".ico", ".svg", ".svgz")
_MAX_ALT_CHARS = 200


def illustrations(page: Page, oembed: OEmbed | None, limit: int) -> tuple[Picture, ...]:
    """Choose what to try, at most `limit` images; the site's icons only where the page has nothing else to show."""
    chosen: dict[str, Picture] = {}
    for picture in _all(page, oembed):
        is_icon = picture.url in page.icon_urls or _NO_PICTURE.search(picture.url.partition("?")[0]) is not None
        if not is_icon and not _is_unfit(picture) and len(chosen) < limit:
            chosen.setdefault(picture.url, replace(picture, alt=plain(picture.alt, _MAX_ALT_CHARS)))
    return tuple(chosen.values()) or _icons(page)[:limit]


def _is_unfit(picture: Picture) -> bool:
    """Tell whether an image is too small; of what Open Graph names, only if it is called like an icon as well."""
    return is_too_small(picture) and (picture.rule != "og:image" or is_decoration(picture))


def _icons(page: Page) -> tuple[Picture, ...]:
    """Name the site's icons, those for home screens first, since they are the larger ones."""
    urls = sorted(page.icon_urls, key=lambda url: ("apple" not in url, url))
    return tuple(Picture(url=url, rule="link rel=icon") for url in urls if not url.lower().endswith(_NO_BITMAP))


def _all(page: Page, oembed: OEmbed | None) -> Iterator[Picture]:
    yield from _of_open_graph(page)
    for name in _TWITTER:
        yield from _of_urls(page, [value for known, value in page.meta if known == name], "twitter:image")
    if oembed is not None and oembed.picture is not None:
        yield oembed.picture
    for thing in page.things:
        yield from _of_urls(page, thing.images, "JSON-LD image")
    yield from (picture for picture in page.pictures if picture.rule.startswith("link"))
    yield from _of_urls(page, [value for name, value in page.meta if name == "itemprop:image"], "itemprop=image")
    yield from (picture for picture in page.pictures if not picture.rule.startswith("link"))


def _of_urls(page: Page, urls: list[str] | tuple[str, ...], rule: str) -> Iterator[Picture]:
    for url in urls:
        found = resolved(page.base_url, url)
        if found is not None:
            yield Picture(url=found, rule=rule)


def _of_open_graph(page: Page) -> Iterator[Picture]:
    """Read og:image and what follows it of its properties, up to the next og:image (ogp.me, "Arrays").

    The sizes that are declared there are often wrong, so they alone never rule an image out.
    """
    said: dict[str, str] = {}
    for name, value in [*page.meta, ("og:image", "")]:
        begins_anew = name == "og:image" or (name == "og:image:url" and "url" in said and said["url"] != value)
        if begins_anew and said:
            yield from _structured(page, said)
            said = {}
        if name in _OG_URLS and value:
            said["url"] = value
        elif name.startswith("og:image:"):
            said.setdefault(name.removeprefix("og:image:"), value)


def _structured(page: Page, said: dict[str, str]) -> Iterator[Picture]:
    found = resolved(page.base_url, said.get("secure_url")) or resolved(page.base_url, said.get("url"))
    if found is not None:
        width, height = number(said.get("width")), number(said.get("height"))
        yield Picture(url=found, rule="og:image", alt=said.get("alt"), width=width, height=height)
