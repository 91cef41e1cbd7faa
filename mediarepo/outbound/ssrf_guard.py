"""The SSRF guard: resolves names, and permits only public addresses and what the operator allows.

The special ranges are those of the IANA special-purpose registries. An IPv6 address that carries an IPv4 address is
checked by what it carries as well, since gateways and kernels route it there.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from mediarepo.config.reload import Derived
from mediarepo.model.concurrency import Admission
from mediarepo.model.requester import current_client
from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.urls import check_host, literal_address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORBIDDEN: Sequence[Network] = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "::/128",  # unspecified
        "::1/128",  # loopback
        "100::/64",  # discard
        "100:0:0:1::/64",  # dummy
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which nobody is reached by any more, whatever it hides
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
]
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_ISATAP = (0x00005EFE, 0x02005EFE)
_LOW_32 = 0xFFFFFFFF


class AddressPolicy:
    """Permits or denies addresses; a deny rule wins over an allow rule."""

    def __init__(self, *, allow: Callable[[], Sequence[str]], deny: Callable[[], Sequence[str]]) -> None:
        self._allow = Derived(allow, _networks)
        self._deny = Derived(deny, _networks)

    def permits(self, address: Address) -> bool:
        """Return whether a connection to this address may be opened."""
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            return False
        faces = list(_faces(address))
        if any(_within(face, self._deny()) for face in faces):
            return False
        return all(_within(face, self._allow()) or _is_public(face) for face in faces)


def _networks(texts: Sequence[str]) -> list[Network]:
    return [ipaddress.ip_network(text) for text in texts]


def hosts_behind(host: str) -> list[str]:
    """Return a host in its own spelling, and for an IPv6 address every IPv4 address embedded in it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [host]
    return [host, *(str(face) for face in _faces(address) if face != address)]


def _faces(address: Address) -> Iterator[Address]:
    """Give the address itself and every IPv4 address hidden in it; a mapped one is nothing but what it hides."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    yield address
    yield from _hidden(address)


def _hidden(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    number = int(address)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64 or address in _TRANSLATED or (address in _COMPATIBLE and number > 1):
        yield ipaddress.IPv4Address(number & _LOW_32)
    if address in _NAT64_LOCAL:
        yield from (found for found in _translated_locally(number) if found not in _THIS_NETWORK)
    if (number >> 32) & _LOW_32 in _ISATAP:
        yield ipaddress.IPv4Address(number & _LOW_32)


def _translated_locally(number: int) -> Iterator[ipaddress.IPv4Address]:
    """Read an address at each place of RFC 6052, since RFC 8215 leaves the prefix length open; zeros fill the rest."""
    yield ipaddress.IPv4Address(number & _LOW_32)
    yield ipaddress.IPv4Address((number >> 24) & _LOW_32)
    yield ipaddress.IPv4Address(((number >> 64) & 0xFF) << 24 | (number >> 32) & 0xFFFFFF)
    yield ipaddress.IPv4Address(((number >> 64) & 0xFFFF) << 16 | (number >> 40) & 0xFFFF)


def _is_public(address: Address) -> bool:
    if _within(address, _FORBIDDEN):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return address in _PUBLIC_IPV6 or address in _NAT64


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Gives a name's addresses as text; OSError when it has none."""

_THREADS = 64
_PER_DOMAIN = 16
_MAX_ADDRESSES = 16


class SystemLookup:
    """Uses the system's resolver, in its own threads, so that a slow name delays no other work."""

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
        """Stop the threads, without waiting for lookups that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for running in self._running.values():
            running.cancel()


def domain_of(host: str) -> str:
    """Return the last two labels of a name, which usually have one owner; an address stays whole."""
    return host if literal_address(host) is not None else ".".join(host.lower().rstrip(".").split(".")[-2:])


def _getaddrinfo(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class GuardedResolver(AbstractResolver):
    """Resolves names for aiohttp, without the addresses that the policy denies."""

    def __init__(self, rules: AddressPolicy, lookup: Lookup, timeout_s: float) -> None:
        self._rules = rules
        self._lookup = lookup
        self._timeout_s = timeout_s

    def check_literal(self, host: str) -> None:
        """Check a host that is an IP address; names are checked when they are resolved.

        Raises OutboundError with FORBIDDEN_ADDRESS when the policy does not permit it.
        """
        address = literal_address(host)
        if address is None:
            check_host(host)
        elif not self._rules.permits(address):
            raise OutboundError(OutboundReason.FORBIDDEN_ADDRESS, f"{host} is a forbidden address")

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - both are tried
    ) -> list[ResolveResult]:
        """Resolve a name. Raises OutboundError when it has no permitted address."""
        permitted = [address for address in await self._addresses(host) if self._rules.permits(address)]
        if not permitted:
            raise OutboundError(OutboundReason.FORBIDDEN_ADDRESS, f"{host} has only forbidden addresses")
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
        """Do nothing: there is nothing to close."""
