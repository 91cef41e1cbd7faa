"""Rounds: each server in turn, then in the opposite order, so that a busy moment strikes all of them alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from bench.load import Figures, put_under_load
from bench.objects import Case
from bench.processes import cpu_s, pss_mb
from bench.servers import Running

OURS, NGINX, S3 = "mediarepo", "nginx", "S3 server"
_WARM_UP_S = 1.0
_MS_PER_S = 1000
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class Round:
    """One server under one load once."""

    requests_per_s: float
    cpu_ms: float
    errors: int


@dataclass(slots=True)
class Result:
    """All rounds of one case, by server; `pss_mb` is read after the last one."""

    case: Case
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    pss_mb: dict[str, float] = field(default_factory=dict)

    def requests_per_s(self, server: str) -> float:
        """Take the median rate."""
        return median(one.requests_per_s for one in self.rounds[server])

    def mb_per_s(self, server: str) -> float:
        """Take the median rate in MB."""
        return self.requests_per_s(server) * self.case.transferred_bytes / 1_000_000

    def cpu_ms(self, server: str) -> float:
        """Take the median cost of a request."""
        return median(one.cpu_ms for one in self.rounds[server])

    def errors(self, server: str) -> int:
        """How many requests failed."""
        return sum(one.errors for one in self.rounds[server])

    def rate_ratio(self, server: str) -> float | None:
        """Take the median of the rounds' ratios to nginx."""
        pairs = list(self._pairs(server))
        return (
            median(one.requests_per_s / max(other.requests_per_s, _NOTHING) for one, other in pairs) if pairs else None
        )

    def cpu_ratio(self, server: str) -> float | None:
        """As `rate_ratio`, of the cost."""
        pairs = list(self._pairs(server))
        return median(one.cpu_ms / max(other.cpu_ms, _NOTHING) for one, other in pairs) if pairs else None

    def _pairs(self, server: str) -> Iterator[tuple[Round, Round]]:
        return zip(self.rounds[server], self.rounds.get(NGINX, ()), strict=False)


async def measure(case: Case, servers: Mapping[str, Running], *, rounds: int, seconds: float, wrk: bool) -> Result:
    """Warm up, then measure every server once in each round."""
    result = Result(case, {name: [] for name in servers})
    order: Sequence[str] = list(servers)
    for name in order:
        await _round(case, name, servers[name], min(seconds, _WARM_UP_S), wrk=wrk)
    for _ in range(rounds):
        for name in order:
            result.rounds[name].append(await _round(case, name, servers[name], seconds, wrk=wrk))
        order = order[::-1]
    result.pss_mb = {name: pss_mb(server.pid) for name, server in servers.items()}
    return result


async def _round(case: Case, name: str, server: Running, seconds: float, *, wrk: bool) -> Round:
    ask = case.ours if name == OURS else replace(case.direct, address=server.address)
    before_s = cpu_s(server.pid)
    figures: Figures = await put_under_load(ask, seconds, wrk=wrk)
    used_s = cpu_s(server.pid) - before_s
    requests = max(figures.requests, _NOTHING)
    return Round(figures.requests / figures.seconds, used_s / requests * _MS_PER_S, figures.errors)
