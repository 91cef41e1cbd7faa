"""SRV records, by which a server name points to hosts and ports (RFC 2782)."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

_LIFETIME_S = 8.0
_MAX_RECORDS = 10
_SHORTEST_S, _LONGEST_S, _NONE_S = 60, 3_600, 300


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One SRV target; `host` has no trailing dot, and is empty when the service is not provided."""

    host: str
    port: int
    priority: int
    weight: int
    ttl_s: int = 300


SrvLookup = Callable[[str], Awaitable[Sequence[SrvRecord]]]
"""Gives the records of a name such as _matrix-fed._tcp.example.org; none when there are none. OSError on failure."""


async def lookup_srv(name: str) -> Sequence[SrvRecord]:
    """Look up SRV records at the system's DNS servers; [] when there are none. Raises OSError when the lookup fails."""
    try:
        answer = await dns.asyncresolver.resolve(name, dns.rdatatype.SRV, lifetime=_LIFETIME_S, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except dns.resolver.NoResolverConfiguration:
        return []
    except dns.exception.DNSException as exc:
        raise OSError(f"SRV records of {name} cannot be looked up: {exc}") from exc
    ttl_s = 0 if answer.rrset is None else answer.rrset.ttl
    return [SrvRecord(str(one.target).rstrip("."), one.port, one.priority, one.weight, ttl_s) for one in answer]


def srv_lifetime_s(records: Sequence[SrvRecord]) -> float:
    """Return how long to cache an answer: its TTL, between a minute and an hour."""
    if not records:
        return _NONE_S
    return min(max(min(one.ttl_s for one in records), _SHORTEST_S), _LONGEST_S)


def order_by_priority(records: Sequence[SrvRecord]) -> list[SrvRecord]:
    """Sort records in the order to try: by priority, then at random by weight (RFC 2782)."""
    ordered = sorted(records, key=lambda one: (one.priority, -(random.random() ** (1 / (one.weight + 0.01)))))  # noqa: S311 - spreads load, keeps no secret
    return ordered[:_MAX_RECORDS]
