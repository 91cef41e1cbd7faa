"""oEmbed providers and responses (oembed.com, 2.3); only text and one image are used."""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Self
from urllib.parse import quote

from mediarepo.model.previews import OEmbed, Picture, PreviewUrl
from mediarepo.previews.encoding import decode
from mediarepo.previews.html import parse_xml
from mediarepo.previews.image_candidates import parse_number
from mediarepo.previews.page import media_type_essence, read_html
from mediarepo.previews.structured_data import read_json
from mediarepo.previews.url_policy import resolve_url

_SCHEME = re.compile(r"https?:(?://)?([^/]+)(/.*)?")
_LIST = "oembed_providers.json"


class OEmbedProviders:
    """The list of oEmbed providers; built once, since it is long."""

    def __init__(self, schemes: Iterable[tuple[str, str]]) -> None:
        """Take pairs of a URL pattern with * for anything, and the endpoint's URL."""
        self._by_host: dict[str, list[tuple[str, str]]] = {}
        self._by_pattern: list[tuple[str, str, str]] = []
        for scheme, endpoint in schemes:
            found = _SCHEME.fullmatch(scheme)
            if found is None:
                continue
            host, path = found[1].lower(), found[2] or "/"
            if "*" in host:
                self._by_pattern.append((host, path, endpoint))
            else:
                self._by_host.setdefault(host, []).append((path, endpoint))

    @classmethod
    @functools.cache
    def shipped(cls) -> Self:
        """Load the built-in list, once."""
        return cls(_schemes(json.loads(files("mediarepo.previews").joinpath(_LIST).read_text("utf-8"))))

    def request_url(self, url: PreviewUrl, *, language: str | None = None) -> str | None:
        """Return the oEmbed request URL for a page; None when no provider is known."""
        asked = url.path if url.query is None else f"{url.path}?{url.query}"
        for path, endpoint in self._by_host.get(url.host, []):
            if _fits(path, asked):
                return _request_url(endpoint, url, language)
        for host, path, endpoint in self._by_pattern:
            if (_fits(host, url.host) or host == f"*.{url.host}") and _fits(path, asked):
                return _request_url(endpoint, url, language)
        return None


def _schemes(providers: list[dict[str, list[dict[str, object]]]]) -> Iterator[tuple[str, str]]:
    for provider in providers:
        for endpoint in provider["endpoints"]:
            schemes, url = endpoint.get("schemes"), endpoint["url"]
            if isinstance(schemes, list) and isinstance(url, str):
                yield from ((str(scheme), url) for scheme in schemes)


def _request_url(endpoint: str, url: PreviewUrl, language: str | None) -> str:
    address = endpoint.replace("{format}", "json")
    query = f"url={quote(url.text, safe='')}&format=json"
    if language is not None:
        query += f"&lang={quote(language, safe='')}"
    return f"{address}{'&' if '?' in address else '?'}{query}"


def _fits(pattern: str, text: str) -> bool:
    """Match with * for anything, never going back, so that no pattern takes long."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    for piece in rest[:-1]:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])


_MAX_BYTES = 512 * 1024
_MAX_VALUE_CHARS = 8192
_MAX_FIELDS = 50
_MAX_BLOCKS = 10


def read_oembed(body: bytes, *, url: str, content_type: str | None) -> OEmbed | None:
    """Parse an oEmbed response from `url`, leniently; None when it is none."""
    text, _ = decode(body[:_MAX_BYTES], content_type)
    is_xml = media_type_essence(content_type).endswith("xml") or text.lstrip().startswith("<")
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
    )


def _picture(kind: str, fields: dict[str, str], url: str) -> Picture | None:
    for name, prefix in (("url", ""), ("thumbnail_url", "thumbnail_")):
        if name == "url" and kind != "photo":
            continue
        found = resolve_url(url, fields.get(name))
        if found is not None:
            width, height = parse_number(fields.get(f"{prefix}width")), parse_number(fields.get(f"{prefix}height"))
            return Picture(url=found, rule=f"oEmbed {name}", width=width, height=height)
    return None


def _text_of(html: str, url: str) -> str | None:
    """Say what a reader would see of embedded HTML; scripts and frames are nothing to see."""
    blocks = read_html(html, url).blocks[:_MAX_BLOCKS]
    return " ".join(block.text for block in blocks) or None
