"""JSON-LD (schema.org) and RSS or Atom feeds."""

import json
import re
from collections import Counter
from collections.abc import Iterator

from mediarepo.model.previews import LinkedData, Page, Picture
from mediarepo.previews.html import parse_xml
from mediarepo.previews.url_policy import resolve_url

_MAX_DEPTH = 40
_MAX_CHARS = 1_000_000
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_WRAPPING = re.compile(
    r"^(?:\s|<!--|-->|//\s*<!\[CDATA\[|/\*\s*<!\[CDATA\[\s*\*/|<!\[CDATA\[|\ufeff|//\s*$)+", re.MULTILINE
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_STRING = r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_COMMENT = re.compile(rf"({_STRING})|/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
_COMMAS = re.compile(rf"({_STRING})|,[\s,]*+([\]}}])?", re.DOTALL)
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _: None)


def read_json(text: str) -> object:
    """Parse the first JSON value of a text, ignoring comments around it; None when it is invalid or too deep."""
    text = _beginning(text[:_MAX_CHARS])
    try:
        return _strictly(text)
    except (ValueError, RecursionError):
        pass
    try:
        return _strictly(_plain(text))
    except (ValueError, RecursionError):
        return None


def _strictly(text: str) -> object:
    if _is_deep(text):
        return None
    return _without_surrogates(_DECODER.raw_decode(text)[0])


def _plain(text: str) -> str:
    """Take comments away, and commas that nothing follows; in time proportional to the text."""
    text = _COMMENT.sub(lambda found: found[1] or " ", text)
    return _COMMAS.sub(lambda found: found[1] or found[2] or ",", text).strip()


def _without_surrogates(value: object) -> object:
    """Leave out halves of surrogate pairs, which JSON can escape and no text may hold."""
    if isinstance(value, str):
        return _SURROGATES.sub("", value)
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {str(_without_surrogates(name)): _without_surrogates(one) for name, one in value.items()}
    return value


def _beginning(text: str) -> str:
    wrapping = _WRAPPING.match(text)
    return text[wrapping.end() :] if wrapping else text


def _is_deep(text: str) -> bool:
    depth = 0
    for token in _TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        if depth > _MAX_DEPTH:
            return True
    return False


_MAX_THINGS, _MAX_VISITED = 30, 2_000
_MAX_IMAGES, _MAX_VALUE_CHARS = 5, 8192
_INWARD = ("@graph", "mainEntity", "mainEntityOfPage")
_CLIPS = frozenset({"videoobject", "audioobject"})
_PAGES = frozenset({"webpage", "profilepage", "collectionpage", "itempage", "aboutpage", "contactpage", "qapage"})
_SITES = frozenset({"website", "organization", "newsmediaorganization", "corporation"})
_PARTS = frozenset(
    {"", "person", "imageobject",
     "breadcrumblist", "listitem", "itemlist", "sitenavigationelement", "wpheader", "wpfooter", "wpsidebar",
     "faqpage", "searchaction", "offer", "aggregaterating", "brand", "contactpoint", "speakablespecification",
     "comment", "answer"}
)  # fmt: skip
_MOST_ALIKE = 3


def read_linked_data(scripts: list[str]) -> tuple[LinkedData, ...]:
    """Parse a page's JSON-LD, likeliest subject first.

    A type that occurs often is a list of the page, and not its subject.
    """
    things = [thing for script in scripts for thing in _things(read_json(script))][:_MAX_THINGS]
    kinds = Counter(_type(thing) for thing in things)
    fitting = [thing for thing in things if _type(thing) not in _PARTS and kinds[_type(thing)] <= _MOST_ALIKE]
    return tuple(_read(thing) for thing in sorted(fitting, key=_rank))


def _things(value: object) -> Iterator[dict[str, object]]:
    waiting = [value]
    visited = 0
    while waiting and visited < _MAX_VISITED:
        visited += 1
        value = waiting.pop(0)
        if isinstance(value, list):
            waiting[:0] = value[:100]
        elif isinstance(value, dict):
            yield value
            if _type(value) not in _PARTS or "@graph" in value:
                waiting.extend(value[name] for name in _INWARD if isinstance(value.get(name), dict | list))


def _type(thing: dict[str, object]) -> str:
    for name in _listed(thing.get("@type")):
        if isinstance(name, str):
            return name.rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower()
    return ""


def _rank(thing: dict[str, object]) -> int:
    kind = _type(thing)
    return (kind in _CLIPS) + 2 * (kind in _PAGES) + 3 * (kind in _SITES)


def _read(thing: dict[str, object]) -> LinkedData:
    return LinkedData(
        type=_type(thing),
        is_site=_type(thing) in _SITES,
        title=_first_text(thing, "headline", "name"),
        description=_first_text(thing, "description", "abstract", "text", "articleBody"),
        author=_name(thing.get("author") or thing.get("creator")),
        publisher=_name(thing.get("publisher")),
        published=_first_text(thing, "datePublished", "uploadDate"),
        modified=_text(thing.get("dateModified")),
        images=tuple(_images(thing)),
    )


def _images(thing: dict[str, object]) -> list[str]:
    found: list[str] = []
    for name in ("image", "thumbnailUrl", "thumbnail", "primaryImageOfPage"):
        for image in _listed(thing.get(name))[:_MAX_IMAGES]:
            url = (image.get("url") or image.get("contentUrl")) if isinstance(image, dict) else image
            found += [one for one in _listed(url)[:1] if isinstance(one, str) and 0 < len(one) < _MAX_VALUE_CHARS]
    return list(dict.fromkeys(found))[:_MAX_IMAGES]


def _name(value: object) -> str | None:
    names = [_text(one.get("name")) if isinstance(one, dict) else _text(one) for one in _listed(value)[:3]]
    return ", ".join(name for name in names if name) or None


def _text(value: object) -> str | None:
    """Read a text, or the first of several, or one with its language ({"@value": ...})."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("@value")
    return value[:_MAX_VALUE_CHARS] if isinstance(value, str) and value.strip() else None


def _first_text(thing: dict[str, object], *names: str) -> str | None:
    return next((text for text in (_text(thing.get(name)) for name in names) if text is not None), None)


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


_CHANNELS = frozenset({"channel", "feed"})
_IMAGES = frozenset({"logo", "url", "image"})
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_MAX_FEED_CHARS = 8192


def read_feed(text: str, url: str) -> Page:
    """Parse what a feed says about itself; an empty page when it is no feed."""
    root = parse_xml(text)
    if root is None:
        return Page(url=url, base_url=url)
    channel = next((child for child in [root, *root] if _local_name(child.tag) in _CHANNELS), root)
    said: dict[str, str] = {}
    for child in list(channel)[:50]:
        name, inner = _local_name(child.tag), next((one.text for one in child if _local_name(one.tag) == "url"), None)
        said.setdefault(name, (inner or child.text or "")[:_MAX_FEED_CHARS])
    image = resolve_url(url, said.get("image") or said.get("logo"))
    description = said.get("description") or said.get("subtitle") or said.get("tagline")
    return Page(
        url=url,
        base_url=url,
        language=said.get("language") or root.get(_XML_LANG),
        title=said.get("title") or None,
        meta=(("description", description),) if description else (),
        pictures=(Picture(url=image, rule="the feed's image"),) if image else (),
    )


def _local_name(tag: object) -> str:
    """Cut the namespace off; comments and the like have none."""
    return tag.rsplit("}", 1)[-1].lower() if isinstance(tag, str) else ""
