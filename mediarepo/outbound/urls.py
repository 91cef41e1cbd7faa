"""URLs as they are followed: read strictly, so that nobody understands them in another way than we do."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin

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
        """What two URLs have in common when the same server answers both."""
        return self.scheme, self.host.lower(), self.port


def parse_url(text: str) -> ParsedUrl:
    """Read a URL, or refuse whatever different readers could understand differently.

    No user name, no backslash, no blank, no international name that is not written as xn--, and IPv4 addresses as four
    decimal numbers only.
    """
    found = _URL.fullmatch(text) if len(text) <= _MAX_URL_CHARS else None
    if found is None or "\\" in text:
        raise OutboundError(OutboundReason.BAD_URL, "not a URL that is followed")
    scheme, host, port = found[1], found[2].strip("[]"), int(found[3] or _DEFAULT_PORTS[found[1]])
    if found[2].startswith("["):
        _check_ipv6(host)
    else:
        check_host(host)
    if not 1 <= port <= _MAX_PORT:
        raise OutboundError(OutboundReason.BAD_URL, f"{host} has no port {port}")
    return ParsedUrl(URL(text.partition("#")[0], encoded=True), scheme, host, port)


def joined(url: str, location: str) -> str:
    """Say where a Location leads, from the URL that it was found at; OutboundError when nobody can tell."""
    if not _PRINTABLE.fullmatch(location):
        raise OutboundError(OutboundReason.BAD_URL, "a Location has characters that no URL has")
    try:
        return urljoin(url, location)
    except ValueError as exc:
        raise OutboundError(OutboundReason.BAD_URL, "a Location is no URL") from exc


def check_request_target(text: str) -> None:
    """Refuse what would not be sent byte for byte as it is."""
    if not _REQUEST_TARGET.fullmatch(text) or text.endswith("?"):
        raise OutboundError(OutboundReason.BAD_URL, "not a request target")


def check_host(host: str) -> None:
    """Refuse what is neither a DNS name nor an IPv4 address in its usual form."""
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


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an IP address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
