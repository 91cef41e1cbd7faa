"""URLs of pages in one spelling, so that rules and caches cannot be dodged by another."""

import ipaddress
import re
from urllib.parse import quote, urljoin

import idna

from mediarepo.errors import InvalidParamError
from mediarepo.model.previews import PreviewUrl
from mediarepo.outbound.errors import OutboundError
from mediarepo.outbound.urls import parse_url

MAX_URL_CHARS = 4096
_PARTS = re.compile(r"(https?)://([^/?#\\\s]*)(/[^?#]*)?(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::([0-9]{0,5}))?")
_UNSEEN = re.compile(r"[\x00-\x20\x7f]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|%")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = "/%!$&'()*+,;=:@-._~"
_QUERY_SAFE = _PATH_SAFE + "?[]{}|^`"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_preview_url(text: str) -> PreviewUrl:
    """Read a URL that somebody wants to see a preview of, or refuse it (InvalidParamError).

    International names become xn--, a host loses its last dot, a path its dot segments and needless escapes; fragments
    go. User names are refused, and whatever `outbound.urls` does not follow.
    """
    text = text.strip(" \t\r\n")
    found = _PARTS.fullmatch(text) if len(text) <= MAX_URL_CHARS else None
    if found is None or "\\" in text or _UNSEEN.search(text.replace(" ", "")):
        raise InvalidParamError("url is no http or https address that can be previewed")
    scheme = found[1].lower()
    host, port = _authority(found[2], scheme)
    path, query = _path(found[3] or "/"), None if found[4] is None else _escaped(found[4][1:], _QUERY_SAFE)
    shown_port = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
    shown_host = f"[{host}]" if ":" in host else host
    spelt = f"{scheme}://{shown_host}{shown_port}{path}{'' if query is None else f'?{query}'}"
    try:
        parse_url(spelt)
    except OutboundError as exc:
        raise InvalidParamError("url is no address that can be previewed") from exc
    return PreviewUrl(scheme, host, port, path, query, spelt)


def resolved(base_url: str, reference: str | None) -> str | None:
    """Say where a reference on a page leads; None when that is nothing to be fetched over http."""
    reference = re.sub(r"[\t\r\n]", "", (reference or "").strip())
    if not reference or len(reference) > MAX_URL_CHARS:
        return None
    try:
        return parse_preview_url(urljoin(base_url, reference)).text
    except (InvalidParamError, ValueError):
        return None


def ascii_host(host: str) -> str:
    """Spell a host name as DNS knows it: lower case, xn--, without the last dot."""
    host = host.removesuffix(".").lower()
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        raise InvalidParamError("url has a host name that does not exist") from exc


def _authority(text: str, scheme: str) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(text)
    if found is None or "%" in text:
        raise InvalidParamError("url names no host, or a user")
    host = _ipv6(found[1][1:-1]) if found[1].startswith("[") else ascii_host(found[1])
    return host, int(found[2]) if found[2] else _DEFAULT_PORTS[scheme]


def _ipv6(text: str) -> str:
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError as exc:
        raise InvalidParamError("url names no IPv6 address") from exc


def _path(text: str) -> str:
    kept: list[str] = []
    segments = _escaped(text, _PATH_SAFE).split("/")[1:]
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def _escaped(text: str, safe: str) -> str:
    return quote(_ESCAPE.sub(_plainer, text), safe=safe, errors="replace")


def _plainer(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return "%25"
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else f"%{escape[1].upper()}"
