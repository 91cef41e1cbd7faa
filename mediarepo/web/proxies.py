"""Trusted proxies: whose forwarded headers are believed, and the client's address."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from aiohttp import web

from mediarepo.config.reload import Derived
from mediarepo.config.server import ListenConfig

_HOP = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?|([^:\[\]]+):[0-9]{1,5}|([^\[\]]+)")
"""An address with or without a port: an IPv6 address with one stands in brackets (RFC 7239 section 6)."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """The reverse proxies in front of us."""

    def __init__(self, config: ListenConfig) -> None:
        self._config = config
        self._trusted = Derived(lambda: config.trusted_proxies, _Trusted)

    def host(self, request: web.Request) -> str:
        """Return the Host that the client used, from a trusted proxy's header or the request.

        The authority of an absolute request target wins over the Host header (RFC 9112, section 3.2.2).
        """
        forwarded = request.headers.get("X-Forwarded-Host")
        if forwarded is not None and self.trusts_sender(request):
            return forwarded.partition(",")[0].strip()
        if not request.raw_path.startswith("/"):
            return _authority(request.raw_path)
        return request.headers.get("Host", "")

    def client_address(self, request: web.Request) -> str:
        """Return the client's address: the nearest hop that is no trusted proxy."""
        peer = _peer(request)
        if not self.trusts_sender(request):
            return "" if peer is None else str(_parse(peer) or peer)
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for hop in reversed(hops):
            address = parse_hop(hop)
            if address is None:
                break
            if not self._trusted().holds(address):
                return str(address)
        return "" if peer is None else str(_parse(peer) or peer)

    def client_network(self, request: web.Request) -> str:
        """Return the client's network, whose requests are counted together."""
        config = self._config
        return _network(self.client_address(request), config.client_ipv4_prefix, config.client_ipv6_prefix)

    def trusts_sender(self, request: web.Request) -> bool:
        """Say whether a request came over a trusted proxy, so that its forwarded headers count."""
        return self._trusted().trusts(_peer(request))


class _Trusted:
    """The networks of one configuration, and which addresses were found to be in them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._unix = "unix" in texts
        self._networks = [ipaddress.ip_network(text) for text in texts if text != "unix"]
        self._known: dict[str, bool] = {}

    def trusts(self, peer: str | None) -> bool:
        """Say whether the other end of a connection is a trusted proxy; None is a unix socket."""
        if peer is None:
            return self._unix
        if peer not in self._known:
            if len(self._known) > 10_000:  # noqa: PLR2004 - a bound, not a tuning
                self._known.clear()
            parsed = _parse(peer)
            self._known[peer] = parsed is not None and self.holds(parsed)
        return self._known[peer]

    def holds(self, address: _Address) -> bool:
        """Say whether an address lies in one of the networks."""
        return any(address in network for network in self._networks if network.version == address.version)


def parse_hop(text: str) -> _Address | None:
    """Parse an address of X-Forwarded-For, with or without a port; None when it is invalid."""
    matched = _HOP.fullmatch(text.strip())
    if matched is None:
        return _parse(text.strip())  # an IPv6 address without brackets
    return _parse(matched[1] or matched[2] or matched[3])


@lru_cache(maxsize=4096)
def _network(text: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """Return the network of an address, or the text as it is when it is none (a unix socket's client)."""
    address = _parse(text)
    if address is None:
        return text
    bits = ipv4_prefix if address.version == 4 else ipv6_prefix  # noqa: PLR2004 - IPv4
    return str(ipaddress.ip_network((address, bits), strict=False))


_MAX_ADDRESS_CHARS = 100


def _parse(text: str) -> _Address | None:
    """Read an address; one of IPv4 in IPv6 counts as IPv4's, and no zone counts."""
    return _parse_short(text) if len(text) <= _MAX_ADDRESS_CHARS else None


@lru_cache(maxsize=4096)
def _parse_short(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def origin_form(request_target: str) -> str:
    """Return the path and query of a request target, unchanged, also of an absolute one."""
    if request_target.startswith("/"):
        return request_target
    rest = request_target.partition("://")[2]
    at = re.search(r"[/?]", rest)
    path = "" if at is None else rest[at.start() :]
    return path if path.startswith("/") else f"/{path}"


def _authority(request_target: str) -> str:
    """Read the authority of a request target in absolute form; empty when there is none."""
    _, separator, rest = request_target.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0] if separator else ""
    return authority.rpartition("@")[2]


def _peer(request: web.Request) -> str | None:
    """Read the address at the other end of the connection; None for a unix socket."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return str(peer[0]) if isinstance(peer, tuple) else None
