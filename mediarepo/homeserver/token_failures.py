"""Limits how many unknown access tokens a client network may try."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mediarepo.config.limits import Rate
from mediarepo.errors import LimitExceededError

_MAX_NETWORKS = 100_000
_WAIT_S = 10.0


@dataclass(slots=True)
class _Network:
    """A leaky bucket of failures, and the questions that are under way."""

    seen_ms: int
    failures: float = 0.0
    options: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class TokenFailureLimiter:
    """Lets tokens be asked about, as long as not too many of the same network failed; good ones cost nothing."""

    def __init__(self, rate: Callable[[], Rate | None], now_ms: Callable[[], int]) -> None:
        self._rate = rate
        self._now_ms = now_ms
        self._networks: OrderedDict[str, _Network] = OrderedDict()

    @asynccontextmanager
    async def question(self, name: str) -> AsyncIterator[Callable[[], None]]:
        """Ask about a token for a network; call what is given when the token turned out to be unknown.

        LimitExceededError when too many were. While others of the network are being asked about, their answers are
        waited for: they may all be good.
        """
        rate = self._rate()
        if rate is None:
            yield lambda: None
            return
        network = self._network(name)
        await self._wait(network, rate)
        network.options += 1
        try:
            yield lambda: self._fail(network)
        finally:
            network.options -= 1
            network.answered.set()

    async def _wait(self, network: _Network, rate: Rate) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                while not self._has_room(network, rate):
                    network.answered.clear()
                    await network.answered.wait()
        except TimeoutError as exc:
            raise _refusal(1) from exc

    def _has_room(self, network: _Network, rate: Rate) -> bool:
        self._leak(network, rate)
        over = network.failures + 1 - rate.burst
        if over > 0:
            raise _refusal(max(1, -int(-over / rate.per_s // 1)))
        return over + network.options <= 0

    def _fail(self, network: _Network) -> None:
        network.failures += 1

    def _leak(self, network: _Network, rate: Rate) -> None:
        now_ms = self._now_ms()
        network.failures = max(0.0, network.failures - (now_ms - network.seen_ms) / 1000 * rate.per_s)
        network.seen_ms = now_ms

    def _network(self, name: str) -> _Network:
        network = self._networks.setdefault(name, _Network(self._now_ms()))
        self._networks.move_to_end(name)
        while len(self._networks) > _MAX_NETWORKS:
            self._networks.popitem(last=False)
        return network


def _refusal(retry_after_s: int) -> LimitExceededError:
    return LimitExceededError("too many unknown access tokens from this network", retry_after_s=retry_after_s)
