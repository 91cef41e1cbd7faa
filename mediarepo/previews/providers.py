"""The list of known oEmbed providers (oembed.com), shipped beside this file as it is published."""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Self
from urllib.parse import quote

from mediarepo.model.previews import PreviewUrl

_SCHEME = re.compile(r"https?:(?://)?([^/]+)(/.*)?")
_LIST = "oembed_providers.json"


class OEmbedProviders:
    """Knows whom to ask about which page; made once, since the list is long."""

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
        """Read the list that is shipped, once."""
        return cls(_schemes(json.loads(files("mediarepo.previews").joinpath(_LIST).read_text("utf-8"))))

    def request_url(self, url: PreviewUrl, *, language: str | None = None) -> str | None:
        """Say where to get the oEmbed answer about a page; None when nobody is known to have one."""
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
