"""RSS and Atom, for links that lead to a feed instead of a page."""

from mediarepo.model.previews import Page, Picture
from mediarepo.previews.parsing import parse_xml
from mediarepo.previews.urls import resolved

_CHANNELS = frozenset({"channel", "feed"})
_IMAGES = frozenset({"logo", "url", "image"})
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_MAX_CHARS = 8192


def read_feed(text: str, url: str) -> Page:
    """Read what a feed says of itself; a page without anything for what is no feed."""
    root = parse_xml(text)
    if root is None:
        return Page(url=url, base_url=url)
    channel = next((child for child in [root, *root] if _name(child.tag) in _CHANNELS), root)
    said: dict[str, str] = {}
    for child in list(channel)[:50]:
        name, inner = _name(child.tag), next((one.text for one in child if _name(one.tag) == "url"), None)
        said.setdefault(name, (inner or child.text or "")[:_MAX_CHARS])
    image = resolved(url, said.get("image") or said.get("logo"))
    description = said.get("description") or said.get("subtitle") or said.get("tagline")
    return Page(
        url=url,
        base_url=url,
        language=said.get("language") or root.get(_XML_LANG),
        title=said.get("title") or None,
        meta=(("description", description),) if description else (),
        pictures=(Picture(url=image, rule="the feed's image"),) if image else (),
    )


def _name(tag: object) -> str:
    """Cut the namespace off; comments and the like have none."""
    return tag.rsplit("}", 1)[-1].lower() if isinstance(tag, str) else ""
