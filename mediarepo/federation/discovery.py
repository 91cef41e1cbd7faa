"""From a server name to where that server answers (server-server API, "Resolving server names")."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mediarepo.errors import InvalidParamError
from mediarepo.federation.server_names import DEFAULT_PORT, ServerName, split_server_name
from mediarepo.federation.srv import SrvLookup, SrvRecord, good_s, in_order, lookup_srv
from mediarepo.federation.well_known import WellKnown
from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.targets import Target

_SERVICES = ("_matrix-fed._tcp", "_matrix._tcp")
_SRV_FAILED_S = 60.0
_MAX_ENTRIES = 10_000


@dataclass(slots=True)
class Found:
    """Where to connect, in the order to try; `steps` says in words how that was found."""

    targets: Sequence[Target] = ()
    steps: list[str] = field(default_factory=list)


class Discovery:
    """Finds servers by name; delegations and SRV records are remembered for as long as they are good."""

    def __init__(self, well_known: WellKnown, *, clock_s: Callable[[], float], lookup: SrvLookup = lookup_srv) -> None:
        self._well_known = well_known
        self._clock_s = clock_s
        self._lookup = lookup
        self._records: OrderedDict[str, tuple[Sequence[SrvRecord], float]] = OrderedDict()

    async def targets(self, server_name: str) -> Sequence[Target]:
        """Find where a server answers; OutboundError when it says that it does not."""
        return (await self.find(server_name)).targets

    async def find(self, server_name: str) -> Found:
        """Find where a server answers, and tell how."""
        found = Found()
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
            return [_at(server, one.host, one.port) for one in in_order(records) if one.host]
        steps.append(f"no SRV records: port {DEFAULT_PORT} of {server.host}")
        return [_direct(server)]

    async def _srv(self, name: str, steps: list[str]) -> Sequence[SrvRecord]:
        records, good_until_s = self._records.get(name, ((), 0.0))
        if good_until_s > self._clock_s():
            return records
        try:
            records = await self._lookup(name)
            lifetime_s = good_s(records)
        except OSError as exc:
            steps.append(f"{exc}{'; the last known ones are believed' if records else ''}")
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
