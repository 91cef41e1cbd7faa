"""oEmbed answers (oembed.com, 2.3): JSON or XML, of which only text and one image are ever used."""

from mediarepo.model.previews import OEmbed, Picture
from mediarepo.previews.decoding import decode
from mediarepo.previews.json_reading import read_json
from mediarepo.previews.kinds import essence
from mediarepo.previews.parsing import parse_xml
from mediarepo.previews.pictures import number
from mediarepo.previews.reading import read_html
from mediarepo.previews.urls import resolved

_MAX_BYTES = 512 * 1024
_MAX_VALUE_CHARS = 8192
_MAX_FIELDS = 50
_MAX_CACHE_AGE_S = 30 * 24 * 3600
_MAX_BLOCKS = 10


def read_oembed(body: bytes, *, url: str, content_type: str | None) -> OEmbed | None:
    """Read an oEmbed answer from `url`, whatever it lacks; None when there is none in it."""
    text, _ = decode(body[:_MAX_BYTES], content_type)
    is_xml = essence(content_type).endswith("xml") or text.lstrip().startswith("<")
    fields = _from_xml(text) if is_xml else _from_json(text)
    return _read(fields, url) if fields else None


def _from_json(text: str) -> dict[str, str]:
    value = read_json(text)
    if not isinstance(value, dict):
        return {}
    return {
        str(name): str(one) for name, one in list(value.items())[:_MAX_FIELDS] if isinstance(one, str | int | float)
    }


def _from_xml(text: str) -> dict[str, str]:
    root = parse_xml(text)
    if root is None or root.tag != "oembed":
        return {}
    return {child.tag: child.text for child in list(root)[:_MAX_FIELDS] if isinstance(child.tag, str) and child.text}


def _read(fields: dict[str, str], url: str) -> OEmbed:
    kind = fields.get("type", "link").strip().lower()[:20]
    given = {
        name: fields[name][:_MAX_VALUE_CHARS] for name in ("title", "author_name", "provider_name") if name in fields
    }
    return OEmbed(
        type=kind,
        title=given.get("title"),
        author_name=given.get("author_name"),
        provider_name=given.get("provider_name"),
        text=_text_of(fields.get("html", ""), url) if kind in {"rich", "video"} else None,
        picture=_picture(kind, fields, url),
        cache_age_ms=_cache_age_ms(fields.get("cache_age", "")),
    )


def _picture(kind: str, fields: dict[str, str], url: str) -> Picture | None:
    for name, prefix in (("url", ""), ("thumbnail_url", "thumbnail_")):
        if name == "url" and kind != "photo":
            continue
        found = resolved(url, fields.get(name))
        if found is not None:
            width, height = number(fields.get(f"{prefix}width")), number(fields.get(f"{prefix}height"))
            return Picture(url=found, rule=f"oEmbed {name}", width=width, height=height)
    return None


def _text_of(html: str, url: str) -> str | None:
    """Say what a reader would see of embedded HTML; scripts and frames are nothing to see."""
    blocks = read_html(html, url).blocks[:_MAX_BLOCKS]
    return " ".join(block.text for block in blocks) or None


def _cache_age_ms(text: str) -> int | None:
    text = text.strip()
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text[:9]), _MAX_CACHE_AGE_S) * 1000
