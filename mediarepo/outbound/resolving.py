"""From names to addresses that may be connected to; aiohttp connects to nothing else."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from mediarepo.model.admission import Admission
from mediarepo.model.requester import current_client
from mediarepo.outbound.addresses import AddressRules
from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.urls import address_of, check_host

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Gives a name's addresses as text; OSError when it has none."""

_THREADS = 64
_PER_DOMAIN = 16
_MAX_ADDRESSES = 16


class SystemLookup:
    """Asks the system's resolver, in threads of its own, so that a slow name holds up no other work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lookup")
        self._running: dict[tuple[str, str], asyncio.Task[list[str]]] = {}
        self._places = Admission("look up names", places=_THREADS, share=4, per_target=_PER_DOMAIN)

    async def __call__(self, host: str) -> Sequence[str]:
        """Look a name up in DNS and in the hosts file; all who ask for one at a time share one thread."""
        key = host, current_client().name
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._look_up(host))
            running.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(running)

    async def _look_up(self, host: str) -> list[str]:
        """Take a thread for as long as the system needs, even when nobody waits for the answer any longer."""
        async with self._places.enter(target=domain_of(host)):
            return await asyncio.get_running_loop().run_in_executor(self._threads, _getaddrinfo, host)

    def _forget(self, key: tuple[str, str], done: asyncio.Task[list[str]]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # marks it as seen when nobody waits any longer

    def close(self) -> None:
        """End the threads, without waiting for lookups that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for running in self._running.values():
            running.cancel()


def domain_of(host: str) -> str:
    """Return the last two labels of a name, whose owner usually has the others too; an address stays whole."""
    return host if address_of(host) is not None else ".".join(host.lower().rstrip(".").split(".")[-2:])


def _getaddrinfo(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class GuardedResolver(AbstractResolver):
    """Resolves names for aiohttp, leaving out every address that must not be connected to."""

    def __init__(self, rules: AddressRules, lookup: Lookup, timeout_s: float) -> None:
        self._rules = rules
        self._lookup = lookup
        self._timeout_s = timeout_s

    def check_literal(self, host: str) -> None:
        """Refuse an IP address that must not be connected to; names are judged when they are resolved."""
        address = address_of(host)
        if address is None:
            check_host(host)
        elif not self._rules.permits(address):
            raise OutboundError(OutboundReason.FORBIDDEN_ADDRESS, f"{host} is an address that is not connected to")

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - both are tried
    ) -> list[ResolveResult]:
        """Find a name's addresses; OutboundError when it has none that may be connected to."""
        permitted = [address for address in await self._addresses(host) if self._rules.permits(address)]
        if not permitted:
            raise OutboundError(
                OutboundReason.FORBIDDEN_ADDRESS, f"{host} has only addresses that are not connected to"
            )
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,  # noqa: PLR2004 - the protocol's number
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in permitted[:_MAX_ADDRESSES]
        ]

    async def _addresses(self, host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._lookup(host)
        except TimeoutError as exc:
            raise OutboundError(OutboundReason.TOO_SLOW, f"looking up {host} took too long") from exc
        except (OSError, UnicodeError) as exc:
            raise OutboundError(OutboundReason.NAME_NOT_FOUND, f"{host} cannot be resolved: {exc}") from exc
        if not found:
            raise OutboundError(OutboundReason.NAME_NOT_FOUND, f"{host} has no address")
        return [ipaddress.ip_address(text) for text in found]

    async def close(self) -> None:
        """Have nothing to close."""
