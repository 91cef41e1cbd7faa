"""GET requests to other servers by server name."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic

from mediarepo.federation.discovery import DEFAULT_PORT, Discovery, split_server_name
from mediarepo.outbound.client import Outbound, OutboundResponse
from mediarepo.outbound.errors import OutboundError, OutboundReason, Timeouts
from mediarepo.outbound.ssrf_guard import domain_of

_HTTPS_PORT = 443
_NEXT_MAY_DO = {
    OutboundReason.UNREACHABLE,
    OutboundReason.NAME_NOT_FOUND,
    OutboundReason.FORBIDDEN_ADDRESS,
    OutboundReason.TLS_FAILED,
    OutboundReason.BAD_URL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationClient:
    """Sends requests to servers by name."""

    discovery: Discovery
    outbound: Outbound

    async def destination(self, server_name: str) -> str:
        """Return the first address of a name, or its domain where there is none, as the key of fair shares."""
        server = split_server_name(server_name)
        port = server.port or (DEFAULT_PORT if server.is_address else _HTTPS_PORT)
        try:
            return await self.outbound.address(server.host, port)
        except OutboundError:
            return domain_of(server.host)

    @asynccontextmanager
    async def open(
        self, server_name: str, request_target: str, *, headers: Mapping[str, str], timeouts: Timeouts
    ) -> AsyncIterator[OutboundResponse]:
        """GET a request target from the first address that can be connected to.

        Raises OutboundError of the last address when none can. All of them together share one timeout.
        """
        async with AsyncExitStack() as stack:
            yield await self._first(stack, server_name, request_target, headers, timeouts)

    async def _first(
        self,
        stack: AsyncExitStack,
        server_name: str,
        request_target: str,
        headers: Mapping[str, str],
        timeouts: Timeouts,
    ) -> OutboundResponse:
        failure = OutboundError(OutboundReason.NAME_NOT_FOUND, f"{server_name} answers at none of its addresses")
        targets = await self.discovery.targets(server_name)
        until_s = monotonic() + timeouts.total_ms / 1000
        for target in targets:
            left = replace(timeouts, total_ms=max(1, int((until_s - monotonic()) * 1000)))
            try:
                return await stack.enter_async_context(
                    self.outbound.ask(target, request_target, headers=headers, timeouts=left)
                )
            except OutboundError as exc:
                if exc.reason not in _NEXT_MAY_DO:
                    raise
                failure = exc
        raise failure
