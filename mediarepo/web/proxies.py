"""Whose forwarded headers are believed."""

import ipaddress
import re
from collections.abc import Sequence

from aiohttp import web


class TrustedProxies:
    """The reverse proxies in front of us."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._unix = "unix" in networks
        self._networks = [ipaddress.ip_network(network) for network in networks if network != "unix"]
        self._known: dict[str, bool] = {}

    def host(self, request: web.Request) -> str:
        """Read the Host that the client used, as a trusted proxy tells it, or as the request says.

        The authority of a request line with a whole URL counts more than a Host header (RFC 9112, section 3.2.2).
        """
        forwarded = request.headers.get("X-Forwarded-Host")
        if forwarded is not None and self._trusts(request):
            return forwarded.partition(",")[0].strip()
        if not request.raw_path.startswith("/"):
            return _authority(request.raw_path)
        return request.headers.get("Host", "")

    def client_address(self, request: web.Request) -> str:
        """Read whose request it is: the nearest address on its way that is not a trusted proxy's."""
        if not self._trusts(request):
            return _peer(request) or ""
        hops = [hop.strip() for hop in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
        for hop in reversed(hops):
            try:
                if not self._within(hop.strip("[]")):
                    return hop
            except ValueError:
                break
        return _peer(request) or ""

    def _trusts(self, request: web.Request) -> bool:
        address = _peer(request)
        if address is None:
            return self._unix
        if address not in self._known:
            if len(self._known) > 10_000:  # noqa: PLR2004 - a bound, not a tuning
                self._known.clear()
            self._known[address] = self._within(address)
        return self._known[address]

    def _within(self, address: str) -> bool:
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks if network.version == ip.version)


def _authority(request_target: str) -> str:
    """Read the authority of a request target in absolute form; empty when there is none."""
    _, separator, rest = request_target.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0] if separator else ""
    return authority.rpartition("@")[2]


def _peer(request: web.Request) -> str | None:
    """Read the address at the other end of the connection; None for a unix socket."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return str(peer[0]) if isinstance(peer, tuple) else None
