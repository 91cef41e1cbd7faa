"""Images that may illustrate a page, best first."""

import re
from collections.abc import Iterator
from dataclasses import replace

from mediarepo.model.previews import OEmbed, Page, Picture
from mediarepo.previews.text import to_plain_text
from mediarepo.previews.url_policy import resolve_url

_LAZY = (
    "data-old-hires",
    "data-src",
    "data-lazy-src",
    "data-original",
    "data-lazy",
    "data-srcset",
    "data-lazy-srcset",
    "data-hi-res-src",
)
_SRCSET_URL = re.compile(r"[\s,]*+(\S+)")
_SRCSET_DESCRIPTOR = re.compile(r"[^,]*+")
_SRCSET_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([wx])\b")
_USUAL_WIDTH = 500.0
_MAX_SRCSET_CHARS = 8192
_WIDEST = 2000
_NUMBER = re.compile(r"\s*([0-9]{1,5})(?:\.[0-9]+)?\s*(?:px)?\s*")
_SMALLEST = 50
_LONGEST_SHAPE = 5
_UNLIKELY = re.compile(
    r"(?:^|[/_.?&-])(?:favicon|icons?|sprites?|spacer|blank|pixel|tracking|track|beacon|1x1|transparent|placeholder|loading"
    r"|spinner|badge|emoji|smil(?:ey|ies)|button|arrow|captcha|gravatar|avatars?|logo)(?:$|[/_.=0-9-])|\.(?:svg|ico)(?:$|\?)",
    re.IGNORECASE,
)
_USUAL_AREA, _MOST_AREA = 200 * 150, 1600 * 1200
_IN_ARTICLE, _UNLIKELY_SHARE = 4, 0.02


def is_too_small_to_show(picture: Picture) -> bool:
    """Return whether an image's declared size is that of an icon, a tracking pixel, or a line."""
    sides = [side for side in (picture.width, picture.height) if side is not None]
    if any(side < _SMALLEST for side in sides):
        return True
    return len(sides) == 2 and max(sides) > _LONGEST_SHAPE * min(sides)  # noqa: PLR2004 - both sides are known


def image_candidate(attributes: dict[str, str], base_url: str, rule: str) -> Picture | None:
    """Return the image of an <img> or <source>, lazy-loaded ones included; None when it has none."""
    for reference in _references(attributes):
        url = resolve_url(base_url, reference)
        if url is not None:
            return Picture(
                url=url,
                rule=rule,
                alt=attributes.get("alt") or None,
                width=parse_number(attributes.get("width")),
                height=parse_number(attributes.get("height")),
            )
    return None


def _references(attributes: dict[str, str]) -> list[str]:
    lazy = [_best_of(name, attributes[name]) for name in _LAZY if name in attributes]
    usual = [_best_of(name, attributes[name]) for name in ("srcset", "src") if name in attributes]
    return [reference for reference in lazy + usual if reference and not reference.lower().startswith("data:")]


def _best_of(name: str, value: str) -> str | None:
    return largest_source(value) if name.endswith("srcset") else value


def largest_source(srcset: str) -> str | None:
    """Return the largest image of a srcset that a preview needs, or else the smallest."""
    rated = [one for one in _rated(srcset[:_MAX_SRCSET_CHARS]) if not one[1].lower().startswith("data:")]
    fitting = [one for one in rated if one[0] <= _WIDEST]
    if fitting:
        return max(fitting, key=lambda one: one[0])[1]
    return min(rated, key=lambda one: one[0])[1] if rated else None


def _rated(srcset: str) -> Iterator[tuple[float, str]]:
    """Take a srcset apart (HTML, "parse a srcset attribute"), into widths and URLs."""
    at = 0
    while (found := _SRCSET_URL.match(srcset, at)) is not None:
        url, at = found[1], found.end()
        descriptor = ""
        if not url.endswith(","):
            rest = _SRCSET_DESCRIPTOR.match(srcset, at)
            descriptor, at = (rest[0].strip(), rest.end()) if rest else ("", at)
        size = _SRCSET_SIZE.match(descriptor)
        width = float(size[1]) * (1 if size[2] == "w" else _USUAL_WIDTH) if size else _USUAL_WIDTH
        yield width, url.rstrip(",")


def parse_number(text: str | None) -> int | None:
    """Parse a declared size in pixels; None for percentages and the like."""
    found = _NUMBER.fullmatch(text[:20]) if text else None
    return int(found[1]) if found and int(found[1]) > 0 else None


def sort_by_likelihood(pictures: list[Picture], in_article: set[str]) -> list[Picture]:
    """Sort images by how likely they show the page's subject; icons and pixels are left out."""
    fitting = [picture for picture in pictures if not is_too_small_to_show(picture) and not is_decoration(picture)]
    rated = [(_likelihood(picture, at, picture.url in in_article), at, picture) for at, picture in enumerate(fitting)]
    return [picture for _, _, picture in sorted(rated, key=lambda one: (-one[0], one[1]))]


def is_decoration(picture: Picture) -> bool:
    """Return whether an image's name is that of an icon or avatar, and its declared size is not large."""
    return _UNLIKELY.search(picture.url) is not None and (picture.width or 0) * (picture.height or 0) < _USUAL_AREA


def _likelihood(picture: Picture, at: int, in_article: bool) -> float:  # noqa: FBT001 - a fact about the picture
    width, height = picture.width, picture.height
    area = _USUAL_AREA if width is None and height is None else (width or height or 0) * (height or width or 0)
    share = _UNLIKELY_SHARE if _UNLIKELY.search(picture.url) else 1.0
    return min(area, _MOST_AREA) * share * (_IN_ARTICLE if in_article else 1) / (1 + at / 10)


_OG_URLS = frozenset({"og:image", "og:image:url"})
_TWITTER = ("twitter:image", "twitter:image:src", "twitter:image0")
_NO_PICTURE = re.compile(r"\.(?:ico|svgz?)$|/favicon[^/]*$", re.IGNORECASE)
_NO_BITMAP = (".ico", ".svg", ".svgz")
_MAX_ALT_CHARS = 200


def image_candidates(page: Page, oembed: OEmbed | None, limit: int) -> tuple[Picture, ...]:
    """Return at most `limit` images to try; the site's icons only where the page has nothing else."""
    chosen: dict[str, Picture] = {}
    for picture in _all(page, oembed):
        is_icon = picture.url in page.icon_urls or _NO_PICTURE.search(picture.url.partition("?")[0]) is not None
        if not is_icon and not _is_unfit(picture) and len(chosen) < limit:
            chosen.setdefault(picture.url, replace(picture, alt=to_plain_text(picture.alt, _MAX_ALT_CHARS)))
    return tuple(chosen.values()) or _icons(page)[:limit]


def _is_unfit(picture: Picture) -> bool:
    """Tell whether an image is too small; of what Open Graph names, only if it is called like an icon as well."""
    return is_too_small_to_show(picture) and (picture.rule != "og:image" or is_decoration(picture))


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
        found = resolve_url(page.base_url, url)
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
    found = resolve_url(page.base_url, said.get("secure_url")) or resolve_url(page.base_url, said.get("url"))
    if found is not None:
        width, height = parse_number(said.get("width")), parse_number(said.get("height"))
        yield Picture(url=found, rule="og:image", alt=said.get("alt"), width=width, height=height)
