"""URLs of web pages, read as browsers read them (WHATWG URL), in one spelling.

Rules, address guard and cache see this spelling alone: hosts as DNS knows them (UTS 46), IPv4 addresses as four decimal
numbers however they were written, also where IPv6 notation hides one, no last dot, no needless escapes.
"""

import ipaddress
import re
from dataclasses import dataclass

import ada_url

from mediarepo.outbound.errors import OutboundError, OutboundReason

MAX_WEB_URL_CHARS = 8192
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"(?=.{1,253}\Z)[0-9a-z_-]{1,63}(?:\.[0-9a-z_-]{1,63})*", re.ASCII)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|%")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True)
class WebUrl:
    """A URL in its one spelling; `host` is a DNS name or an IP address without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    query: str | None

    @property
    def host_header(self) -> str:
        """Host and port as they stand in the URL."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == _DEFAULT_PORTS[self.scheme] else f"{shown}:{self.port}"

    @property
    def target(self) -> str:
        """What is asked of the server."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def text(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.host_header}{self.target}"


def parse_web_url(text: str) -> WebUrl:
    """Read an absolute http or https URL; OutboundError for what is none, or has a user name."""
    return _read(text, None)


def join_url(base: WebUrl, reference: str) -> WebUrl:
    """Say where a reference leads from a URL; OutboundError as above."""
    return _read(reference, base.text)


def web_host(text: str) -> str:
    """Spell a host name, or an IP address without brackets, as `WebUrl` does; OutboundError when it is neither."""
    shown = f"[{text}]" if ":" in text and not text.startswith("[") else text
    if any(character in shown for character in "/?#@\\") or (":" in shown and not shown.startswith("[")):
        raise _bad("not a host name")
    return parse_web_url(f"http://{shown}/").host


def _read(text: str, base: str | None) -> WebUrl:
    if len(text) > MAX_WEB_URL_CHARS:
        raise _bad("a URL that is too long")
    try:
        parsed = ada_url.URL(text, base=base)
    except ValueError as exc:
        raise _bad("not a URL that is followed") from exc
    scheme = parsed.protocol.removesuffix(":")
    if scheme not in _DEFAULT_PORTS or parsed.username or parsed.password:
        raise _bad("not a URL that is followed")
    port = int(parsed.port or _DEFAULT_PORTS[scheme])
    if port == 0:
        raise _bad("no port")
    whole = parsed.href.partition("#")[0]
    query = whole.partition("?")[2] if "?" in whole else None
    path = _path(_plainer(parsed.pathname)).replace("|", "%7C")  # as Chromium sends it
    found = WebUrl(scheme, _host(parsed.hostname), port, path, None if query is None else _plainer(query))
    if len(found.text) > MAX_WEB_URL_CHARS:
        raise _bad("a URL that is too long")
    return found


def _path(path: str) -> str:
    """Take dot segments away that only their escapes hid."""
    if "/." not in path:
        return path
    return ada_url.URL(f"http://x{path}").pathname


def _host(host: str) -> str:
    if host.startswith("["):
        address = ipaddress.IPv6Address(host[1:-1])
        return str(address.ipv4_mapped or address.compressed)
    host = host.removesuffix(".")
    if not _NAME.fullmatch(host):
        raise _bad("not a host name")
    return host


def _plainer(text: str) -> str:
    """Spell escapes in one way: none where it is not needed, capital letters, and %25 for a lone %."""
    return _ESCAPE.sub(_escape, text)


def _escape(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return "%25"
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else f"%{escape[1].upper()}"


def _bad(words: str) -> OutboundError:
    return OutboundError(OutboundReason.BAD_URL, words)
