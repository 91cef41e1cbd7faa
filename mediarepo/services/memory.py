"""One budget of memory for the buffers of all uploads.

An upload reserves a whole part before it reads the part's first byte, so one that began a part can always finish it.
It may hold one part while it waits for the next; what sends the first is watched meanwhile, so that its failure ends
the wait (`services/large_uploads`). Large bodies may use half of the budget, they and those of at most one part three
quarters, and the rest is for small ones, so that small uploads pass however many large ones crawl; it also makes up
for what waiting connections hold unread. While others wait, whoever sends too slowly is ended.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mediarepo.config.media import UploadsConfig
from mediarepo.errors import LimitExceededError, TooSlowError

_SMALL_BYTES = 1024 * 1024
_SHARES = (1.0, 0.75, 0.5)
"""What bodies of a tier and all larger ones may use together: small (0), up to one part (1), large (2)."""


class Account:
    """One upload's share of the budget, and the pace at which it receives."""

    def __init__(self, budget: "MemoryBudget", tier: int) -> None:
        self.held = 0
        self.tier = tier
        self._budget = budget
        self._pace_until = asyncio.get_running_loop().time() + budget.config.stall_ms / 1000
        self._idle_since = asyncio.get_running_loop().time()
        self._reading: asyncio.Timeout | None = None

    async def reserve(self, size_bytes: int) -> None:
        """Wait until the budget has room; refuses with 429 when too many wait already."""
        await self._budget.take(self, size_bytes)

    def release(self, size_bytes: int) -> None:
        """Give memory back."""
        self._budget.give(self, size_bytes)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Mark the time in which the client is waited for; TooSlowError when it sends too little."""
        loop = asyncio.get_running_loop()
        config = self._budget.config
        self._pace_until += loop.time() - self._idle_since  # what we took ourselves is not the client's
        try:
            async with asyncio.timeout(config.idle_timeout_ms / 1000) as self._reading:
                yield
        except TimeoutError as exc:
            raise TooSlowError("the upload arrived too slowly") from exc
        finally:
            self._reading = None
            self._idle_since = loop.time()

    def received(self, size_bytes: int) -> None:
        """Credit bytes: they buy time at the slowest pace allowed, up to one stall period."""
        now = asyncio.get_running_loop().time()
        config = self._budget.config
        bought = size_bytes / config.min_bytes_per_s if config.min_bytes_per_s else config.stall_ms / 1000
        self._pace_until = min(max(self._pace_until, now) + bought, now + config.stall_ms / 1000)

    def is_slow(self, now: float) -> bool:
        """Say whether the client is being waited for and has used up its credit."""
        return self._reading is not None and now >= self._pace_until

    def end(self) -> None:
        """Let the upload fail with TooSlowError."""
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())
            self._reading = None

    @property
    def pace_until(self) -> float:
        """The loop time at which the upload becomes slow unless more arrives."""
        return self._pace_until


@dataclass(slots=True)
class _Waiter:
    account: Account
    size_bytes: int
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class MemoryBudget:
    """Hands out memory in order of arrival."""

    def __init__(self, config: UploadsConfig) -> None:
        self.config = config
        self._limits = [config.memory_budget_bytes * share for share in _SHARES]
        self._used = [0 for _ in _SHARES]
        self._accounts: set[Account] = set()
        self._waiters: deque[_Waiter] = deque()

    @property
    def used(self) -> int:
        """How much is reserved by all uploads together, in bytes."""
        return sum(self._used)

    @asynccontextmanager
    async def account(self, declared_bytes: int | None) -> AsyncIterator[Account]:
        """Open an upload's account; whatever it still holds at the end is given back."""
        account = Account(self, self._tier(declared_bytes))
        self._accounts.add(account)
        try:
            yield account
        finally:
            self._accounts.discard(account)
            self.give(account, account.held)

    async def take(self, account: Account, size_bytes: int) -> None:
        """Reserve memory for an account, waiting in line if need be."""
        if size_bytes == 0:
            return
        if not self._waiters and self._full_tier(account, size_bytes) is None:
            self._grant(account, size_bytes)
            return
        if len(self._waiters) >= self.config.max_waiting:
            raise LimitExceededError("too many uploads are waiting; try again later", retry_after_s=5)
        waiter = _Waiter(account, size_bytes)
        self._waiters.append(waiter)
        self._serve()
        try:
            await self._wait(waiter)
        except BaseException:
            self._withdraw(waiter)
            raise

    def give(self, account: Account, size_bytes: int) -> None:
        """Take memory back and serve whoever waits."""
        account.held -= size_bytes
        self._used[account.tier] -= size_bytes
        self._serve()

    async def _wait(self, waiter: _Waiter) -> None:
        loop, tick_s = asyncio.get_running_loop(), self.config.stall_ms / 1000 / 4
        while not waiter.granted.done():
            began = loop.time()
            await asyncio.wait([waiter.granted], timeout=tick_s)
            if loop.time() - began < 2 * tick_s:  # else we are slow ourselves, and bytes may wait unread
                self._end_slow_ones()

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter.granted.done():
            self.give(waiter.account, waiter.size_bytes)
        else:
            self._waiters.remove(waiter)
            self._serve()

    def _tier(self, declared_bytes: int | None) -> int:
        if declared_bytes is None or declared_bytes > self.config.part_bytes:
            return 2
        return 0 if declared_bytes <= _SMALL_BYTES else 1

    def _full_tier(self, account: Account, size_bytes: int) -> int | None:
        """Find the highest tier whose share would be exceeded; None when the reservation fits."""
        for tier in range(account.tier, -1, -1):
            if sum(self._used[tier:]) + size_bytes > self._limits[tier]:
                return tier
        return None

    def _grant(self, account: Account, size_bytes: int) -> None:
        account.held += size_bytes
        self._used[account.tier] += size_bytes

    def _serve(self) -> None:
        """Serve in order; whoever waits for a tier's share lets only smaller tiers pass."""
        barrier = len(_SHARES)
        for waiter in list(self._waiters):
            if waiter.account.tier >= barrier:
                continue
            full = self._full_tier(waiter.account, waiter.size_bytes)
            if full is not None:
                barrier = full
                continue
            self._waiters.remove(waiter)
            self._grant(waiter.account, waiter.size_bytes)
            waiter.granted.set_result(None)

    def _end_slow_ones(self) -> None:
        """End as many of the slowest uploads as it takes to serve those who wait."""
        now = asyncio.get_running_loop().time()
        wanted = sum(waiter.size_bytes for waiter in self._waiters)
        slow = [account for account in self._accounts if account.held and account.is_slow(now)]
        for account in sorted(slow, key=lambda one: one.pace_until):
            if wanted <= 0:
                return
            wanted -= account.held
            account.end()
