"""Which parts of a page its readers see, and which of those are about its subject."""

import re
from enum import IntEnum

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
    """What is taken from a part of a page; each takes less than the one before."""

    TEXT = 0
    HEADINGS = 1
    PICTURES = 2
    NOTHING = 3


def region_of(tag: str, attributes: dict[str, str]) -> Region:
    """Judge the inside of a tag by itself, whatever it stands in."""
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
