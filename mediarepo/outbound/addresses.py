"""Which addresses may be connected to: those of the public internet, and what the operator allows.

The special ranges are those of the IANA special-purpose registries. An IPv6 address that carries an IPv4 address is
judged by what it carries as well, since gateways and kernels take it there.
"""

import ipaddress
from collections.abc import Iterator, Sequence

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


class AddressRules:
    """Judges addresses; what is denied is so even where it is allowed as well."""

    def __init__(self, *, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._allow = [ipaddress.ip_network(text) for text in allow]
        self._deny = [ipaddress.ip_network(text) for text in deny]

    def permits(self, address: Address) -> bool:
        """Say whether a connection to this address may be opened."""
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            return False
        faces = list(_faces(address))
        if any(_within(face, self._deny) for face in faces):
            return False
        return all(_within(face, self._allow) or _is_public(face) for face in faces)


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
