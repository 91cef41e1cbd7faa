"""Server discovery: from a server name to the addresses that serve it (server-server API, "Resolving server names")."""

import ipaddress
import random
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from mediarepo.errors import InvalidParamError
from mediarepo.federation.srv import SrvLookup, SrvRecord, lookup_srv, order_by_priority, srv_lifetime_s
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.mxc import parse_server_name
from mediarepo.outbound.client import Outbound, OutboundResponse
from mediarepo.outbound.errors import OutboundError, OutboundReason, Target, Timeouts
from mediarepo.outbound.urls import literal_address

DEFAULT_PORT = 8448
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ServerName:
    """`host` is a DNS name or an IP address without brackets; `text` is the name as written."""

    text: str
    host: str
    port: int | None

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address."""
        return literal_address(self.host) is not None

    @property
    def bare(self) -> str:
        """The name without its port."""
        return f"[{self.host}]" if ":" in self.host else self.host


def split_server_name(text: str) -> ServerName:
    """Split a server name into host and port. Raises InvalidParamError when it is not one."""
    parse_server_name(text)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        _check_ipv6(host)
    else:
        host, _, port = text.partition(":")
    if port and not 1 <= int(port) <= _MAX_PORT:
        raise InvalidParamError("the server name has no valid port")
    return ServerName(text, host, int(port) if port else None)


def _check_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise InvalidParamError("the server name has brackets, but no IPv6 address in them") from None


_MAX_BYTES = 50 * 1024
_OK = 200
_DAY_S = 86_400
_DEFAULT_S, _SHORTEST_S, _LONGEST_S = _DAY_S, 300, 2 * _DAY_S
_REFUSED_S, _FAILED_FIRST_S, _MAX_DOUBLINGS = 3_600, 60, 6
_JITTER = 0.1
_TOO_MANY_REQUESTS, _SERVER_ERRORS = 429, 500
_PASSING = {
    OutboundReason.NAME_NOT_FOUND,
    OutboundReason.UNREACHABLE,
    OutboundReason.TLS_FAILED,
    OutboundReason.TOO_SLOW,
    OutboundReason.BROKEN_OFF,
}
_MAX_ENTRIES = 10_000
_PATIENCE = Timeouts(connect_ms=5_000, headers_ms=5_000, idle_ms=5_000, total_ms=15_000)


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a server name delegates to, or None and the reason.

    Valid until a time of the monotonic clock, and longer while nothing else can be learnt. `failures` counts temporary
    failures in a row.
    """

    server: ServerName | None
    reason: str
    good_until_s: float
    believed_until_s: float = 0.0
    failures: int = 0


class UndelegatedError(Exception):
    """A host has no delegation; `passing` when that may be temporary."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


def well_known_url(host: str) -> str:
    """Return the /.well-known/matrix/server URL of a host."""
    return f"https://{host}/.well-known/matrix/server"


class WellKnown:
    """Fetches and caches delegations, negative ones too; a good one outlives a temporary failure."""

    def __init__(
        self,
        outbound: Outbound,
        remote_fetches: SingleFlight[Delegation],
        *,
        clock_s: Callable[[], float],
        url_of: Callable[[str], str] = well_known_url,
    ) -> None:
        self._outbound = outbound
        self._clock_s = clock_s
        self._url_of = url_of
        self._known: OrderedDict[str, Delegation] = OrderedDict()
        self._flights = remote_fetches

    async def delegation(self, host: str) -> Delegation:
        """Return the delegation of a host."""
        known = self._known.get(host)
        if known is not None and known.good_until_s > self._clock_s():
            return known
        return await self._flights.run(host, lambda: self._asked(host, known))

    async def _asked(self, host: str, before: Delegation | None) -> Delegation:
        try:
            found = await self._ask(self._url_of(host))
        except UndelegatedError as exc:
            found = self._without(exc, before)
        self._known[host] = found
        self._known.move_to_end(host)
        while len(self._known) > _MAX_ENTRIES:
            self._known.popitem(last=False)
        return found

    async def _ask(self, url: str) -> Delegation:
        try:
            async with self._outbound.get(url, headers={}, timeouts=_PATIENCE) as answer:
                _check_status(answer.status, url)
                server = (await answer.read_json(_MAX_BYTES)).get("m.server")
                lifetime_s = _lifetime_s(answer)
        except OutboundError as exc:
            raise UndelegatedError(f"{url}: {exc}", passing=exc.reason in _PASSING) from exc
        if not isinstance(server, str):
            raise UndelegatedError(f"{url} names no m.server", passing=False)
        until_s = self._clock_s() + lifetime_s
        try:
            return Delegation(split_server_name(server), url, until_s, until_s + _LONGEST_S)
        except InvalidParamError as exc:
            raise UndelegatedError(f"{url}: {exc.message}", passing=False) from exc

    def _without(self, failure: UndelegatedError, before: Delegation | None) -> Delegation:
        """Keep what was known before while the failure may pass; ask again ever later."""
        now_s = self._clock_s()
        if not failure.passing:
            return Delegation(None, str(failure), now_s + _jittered(_REFUSED_S))
        failures = 0 if before is None else before.failures
        pause_s = _jittered(min(_FAILED_FIRST_S * 2 ** min(failures, _MAX_DOUBLINGS), _REFUSED_S))
        if before is not None and before.server is not None and now_s < before.believed_until_s:
            reason = f"{failure}; the delegation known before is still used"
            return replace(before, reason=reason, good_until_s=now_s + pause_s, failures=failures + 1)
        return Delegation(None, str(failure), now_s + pause_s, failures=failures + 1)


def _check_status(status: int, url: str) -> None:
    if status != _OK:
        passing = status >= _SERVER_ERRORS or status == _TOO_MANY_REQUESTS
        raise UndelegatedError(f"{url} answers {status}", passing=passing)


def _lifetime_s(answer: OutboundResponse) -> float:
    """Read how long an answer is good, from Cache-Control or Expires, within five minutes and two days.

    Without either it is about a day.
    """
    control = answer.headers.get("Cache-Control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return _SHORTEST_S
    max_age = re.search(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,12})", control)
    if max_age is not None:
        return min(max(int(max_age[1]), _SHORTEST_S), _LONGEST_S)
    try:
        expires = parsedate_to_datetime(answer.headers["Expires"])
        left_s = (expires.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        return _jittered(_DEFAULT_S)
    return min(max(left_s, _SHORTEST_S), _LONGEST_S)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - _JITTER, 1)  # noqa: S311 - spreads load, keeps no secret


_SERVICES = ("_matrix-fed._tcp", "_matrix._tcp")
_SRV_FAILED_S = 60.0


@dataclass(slots=True)
class DiscoveryResult:
    """The targets to try in order; `steps` describes how they were found."""

    targets: Sequence[Target] = ()
    steps: list[str] = field(default_factory=list)


class Discovery:
    """Resolves server names; delegations and SRV records are cached for their lifetime."""

    def __init__(self, well_known: WellKnown, *, clock_s: Callable[[], float], lookup: SrvLookup = lookup_srv) -> None:
        self._well_known = well_known
        self._clock_s = clock_s
        self._lookup = lookup
        self._records: OrderedDict[str, tuple[Sequence[SrvRecord], float]] = OrderedDict()

    async def targets(self, server_name: str) -> Sequence[Target]:
        """Return the targets of a server. Raises OutboundError when it says that it has none."""
        return (await self.find(server_name)).targets

    async def find(self, server_name: str) -> DiscoveryResult:
        """Resolve a server name to its addresses, with the steps taken (server-server API, server discovery).

        Raises OutboundError with BAD_URL when it is not a valid server name.
        """
        found = DiscoveryResult()
        try:
            server = split_server_name(server_name)
        except InvalidParamError as exc:
            raise OutboundError(OutboundReason.BAD_URL, exc.message) from exc
        if server.is_address or server.port is not None:
            found.steps.append(f"{server_name} names its {'address' if server.is_address else 'port'} itself")
            found.targets = [_direct(server)]
            return found
        delegation = await self._well_known.delegation(server.host)
        if delegation.server is not None:
            found.steps.append(f"{delegation.reason} delegates to {delegation.server.text}")
            server = delegation.server
        else:
            found.steps.append(f"no delegation: {delegation.reason}")
        found.targets = await self._of(server, found.steps)
        return found

    async def _of(self, server: ServerName, steps: list[str]) -> Sequence[Target]:
        """Find a server that is not delegated any further."""
        if server.is_address or server.port is not None:
            return [_direct(server)]
        for service in _SERVICES:
            name = f"{service}.{server.host}"
            records = await self._srv(name, steps)
            if not records:
                continue
            steps.append(f"{name} points to {', '.join(f'{one.host}:{one.port}' for one in records)}")
            if [one.host for one in records] == [""]:
                raise OutboundError(OutboundReason.NAME_NOT_FOUND, f"{name} says that there is no such service")
            return [_at(server, one.host, one.port) for one in order_by_priority(records) if one.host]
        steps.append(f"no SRV records: port {DEFAULT_PORT} of {server.host}")
        return [_direct(server)]

    async def _srv(self, name: str, steps: list[str]) -> Sequence[SrvRecord]:
        records, good_until_s = self._records.get(name, ((), 0.0))
        if good_until_s > self._clock_s():
            return records
        try:
            records = await self._lookup(name)
            lifetime_s = srv_lifetime_s(records)
        except OSError as exc:
            steps.append(f"{exc}{'; the last known ones are used' if records else ''}")
            lifetime_s = _SRV_FAILED_S
        self._records[name] = records, self._clock_s() + lifetime_s
        self._records.move_to_end(name)
        while len(self._records) > _MAX_ENTRIES:
            self._records.popitem(last=False)
        return records


def _direct(server: ServerName) -> Target:
    """Connect to the host a server name gives, at its port or the usual one."""
    port = DEFAULT_PORT if server.port is None else server.port
    return Target(host=server.host, port=port, tls_name=server.host, host_header=server.text)


def _at(server: ServerName, host: str, port: int) -> Target:
    """Connect to where an SRV record points, to meet the server that was named."""
    return Target(host=host, port=port, tls_name=server.host, host_header=server.bare)
