"""JSON-LD: what pages say about the thing they show, in the words of schema.org."""

from collections import Counter
from collections.abc import Iterator

from mediarepo.model.previews import LinkedData
from mediarepo.previews.json_reading import read_json

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
    """Read the things that a page's scripts tell of, those that the page is most likely about first.

    Of a type that occurs often the page has a list, and is about none of them.
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
