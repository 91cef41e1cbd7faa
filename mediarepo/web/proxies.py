"""Whose forwarded headers are believed."""

import ipaddress
from collections.abc import Sequence

from aiohttp import web


class TrustedProxies:
    """The reverse proxies in front of us."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._unix = "unix" in networks
        self._networks = [ipaddress.ip_network(network) for network in networks if network != "unix"]
        self._known: dict[str, bool] = {}

    def host(self, request: web.Request) -> str:
        """Read the Host that the client used, as a trusted proxy tells it, or as the request says."""
        forwarded = request.headers.get("X-Forwarded-Host")
        if forwarded is not None and self._trusts(request):
            return forwarded.partition(",")[0].strip()
        return request.headers.get("Host", "")

    def _trusts(self, request: web.Request) -> bool:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        if not isinstance(peer, tuple):
            return self._unix
        address = str(peer[0])
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
