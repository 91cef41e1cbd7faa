"""URLs: parsed strictly for federation, and as browsers do (WHATWG URL) for web pages.

Rules, SSRF guard and cache see one spelling of a web URL: hosts as DNS knows them (UTS 46), IPv4 addresses as four
decimal numbers however they were written, also inside IPv6 notation, no trailing dot, no needless escapes.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin

import ada_url
from yarl import URL

from mediarepo.outbound.errors import OutboundError, OutboundReason

_MAX_URL_CHARS = 8192
_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::([0-9]{1,5}))?([/?][\x21-\x7e]*)?", re.ASCII)
_PRINTABLE = re.compile(r"[\x21-\x7e]*", re.ASCII)
_REQUEST_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*", re.ASCII)
_LABEL = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?", re.ASCII)
_MAX_NAME_CHARS = 253
_MAX_PORT = 65_535
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A URL that can be followed; `host` is a DNS name or an IP address without brackets."""

    url: URL
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host.lower(), self.port


def parse_url(text: str) -> ParsedUrl:
    """Parse a URL strictly: anything that two parsers could understand differently is refused.

    No user name, no backslash, no blank, no international name that is not written as xn--, and IPv4 addresses as four
    decimal numbers only. Raises OutboundError with BAD_URL.
    """
    found = _URL.fullmatch(text) if len(text) <= _MAX_URL_CHARS else None
    if found is None or "\\" in text:
        raise OutboundError(OutboundReason.BAD_URL, "not a supported URL")
    scheme, host, port = found[1], found[2].strip("[]"), int(found[3] or _DEFAULT_PORTS[found[1]])
    if found[2].startswith("["):
        _check_ipv6(host)
    else:
        check_host(host)
    if not 1 <= port <= _MAX_PORT:
        raise OutboundError(OutboundReason.BAD_URL, f"{host} has no port {port}")
    return ParsedUrl(URL(text.partition("#")[0], encoded=True), scheme, host, port)


def join_reference(url: str, location: str) -> str:
    """Resolve a Location against the URL it came from. Raises OutboundError when it is ambiguous."""
    if not _PRINTABLE.fullmatch(location):
        raise OutboundError(OutboundReason.BAD_URL, "a Location has characters that no URL has")
    try:
        return urljoin(url, location)
    except ValueError as exc:
        raise OutboundError(OutboundReason.BAD_URL, "a Location is no URL") from exc


def check_request_target(text: str) -> None:
    """Check that a request target would be sent byte for byte. Raises OutboundError with BAD_URL when not."""
    if not _REQUEST_TARGET.fullmatch(text) or text.endswith("?"):
        raise OutboundError(OutboundReason.BAD_URL, "not a request target")


def check_host(host: str) -> None:
    """Check that a host is a DNS name or a dotted IPv4 address. Raises OutboundError with BAD_URL when not."""
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_NAME_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise OutboundError(OutboundReason.BAD_URL, "not a host name")
    if labels[-1][0].isdecimal() or labels[-1].lower().startswith("0x"):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise OutboundError(OutboundReason.BAD_URL, f"{host} is no usual form of an IPv4 address") from None


def _check_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise OutboundError(OutboundReason.BAD_URL, "not an IPv6 address") from None


def literal_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


MAX_WEB_URL_CHARS = 8192
_NAME = re.compile(r"(?=.{1,253}\Z)[0-9a-z_-]{1,63}(?:\.[0-9a-z_-]{1,63})*", re.ASCII)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|%")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True)
class WebUrl:
    """A normalized URL; `host` is a DNS name or an IP address without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    query: str | None

    @property
    def host_header(self) -> str:
        """Host and port, as in a Host header."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == _DEFAULT_PORTS[self.scheme] else f"{shown}:{self.port}"

    @property
    def target(self) -> str:
        """The request target: path and query."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def text(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.host_header}{self.target}"


def parse_web_url(text: str) -> WebUrl:
    """Parse an absolute http or https URL. Raises OutboundError when it is not one, or has a user name."""
    return _read(text, None)


def join_url(base: WebUrl, reference: str) -> WebUrl:
    """Resolve a reference against a URL. Raises OutboundError as above."""
    return _read(reference, base.text)


def web_host(text: str) -> str:
    """Normalize a host name or IP address as `WebUrl` does. Raises OutboundError when it is neither."""
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
        raise _bad("not a supported URL") from exc
    scheme = parsed.protocol.removesuffix(":")
    if scheme not in _DEFAULT_PORTS or parsed.username or parsed.password:
        raise _bad("not a supported URL")
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
