"""Where a server name delegates to: its /.well-known/matrix/server (server-server API, "Resolving server names")."""

import random
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from mediarepo.errors import InvalidParamError
from mediarepo.federation.server_names import ServerName, split_server_name
from mediarepo.model.single_flight import SingleFlight
from mediarepo.outbound.answers import Answer
from mediarepo.outbound.client import Outbound
from mediarepo.outbound.errors import OutboundError
from mediarepo.outbound.targets import Patience

_MAX_BYTES = 50 * 1024
_OK = 200
_DAY_S = 86_400
_DEFAULT_S, _SHORTEST_S, _LONGEST_S, _FAILED_S, _FAILED_LATELY_S = _DAY_S, 300, 2 * _DAY_S, 3_600, 120
_JITTER = 0.1
_MAX_ENTRIES = 10_000
_PATIENCE = Patience(connect_ms=5_000, headers_ms=5_000, idle_ms=5_000, total_ms=15_000)


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a server name delegates to, or None and why.

    Good until a time of the clock that never goes back; believed for longer while nothing else can be learnt.
    """

    server: ServerName | None
    reason: str
    good_until_s: float
    believed_until_s: float = 0.0


class WellKnown:
    """Asks for delegations and keeps the answers, refusals too; one that was good outlives a passing failure."""

    def __init__(self, outbound: Outbound, flights: SingleFlight[Delegation], *, clock_s: Callable[[], float]) -> None:
        self._outbound = outbound
        self._clock_s = clock_s
        self._known: OrderedDict[str, Delegation] = OrderedDict()
        self._flights = flights

    async def delegation(self, host: str) -> Delegation:
        """Find what a host delegates to."""
        known = self._known.get(host)
        if known is not None and known.good_until_s > self._clock_s():
            return known
        return await self._flights.run(host, lambda: self._asked(host, known))

    async def _asked(self, host: str, before: Delegation | None) -> Delegation:
        found = await self._ask(host)
        if found.server is None and before is not None and self._clock_s() < before.believed_until_s:
            reason = f"{found.reason}; the delegation known before is still believed"
            found = replace(before, reason=reason, good_until_s=self._clock_s() + _FAILED_LATELY_S)
        self._known[host] = found
        self._known.move_to_end(host)
        while len(self._known) > _MAX_ENTRIES:
            self._known.popitem(last=False)
        return found

    async def _ask(self, host: str) -> Delegation:
        url = f"https://{host}/.well-known/matrix/server"
        try:
            async with self._outbound.get(url, headers={}, patience=_PATIENCE) as answer:
                if answer.status != _OK:
                    return self._none(f"{url} answers {answer.status}")
                server = (await answer.read_json(_MAX_BYTES)).get("m.server")
                if not isinstance(server, str):
                    return self._none(f"{url} names no m.server")
                until_s = self._clock_s() + _jittered(_lifetime_s(answer))
                return Delegation(split_server_name(server), url, until_s, until_s + _LONGEST_S)
        except (OutboundError, InvalidParamError) as exc:
            return self._none(f"{url}: {exc}")

    def _none(self, reason: str) -> Delegation:
        return Delegation(None, reason, self._clock_s() + _jittered(_FAILED_S))


def _lifetime_s(answer: Answer) -> float:
    """Read how long an answer is good, from Cache-Control or Expires, within five minutes and two days."""
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
        return _DEFAULT_S
    return min(max(left_s, _SHORTEST_S), _LONGEST_S)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, keeps no secret
