"""When a request to S3 is retried: for how long, after which pauses, and how often in the whole process."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, Self, TypeVar

from mediarepo.storage.errors import StorageUnavailableError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_REFILL = 0.2
"""What a success gives back to the budget: five of them pay for one retry."""


def is_transient(exc: StorageUnavailableError) -> bool:
    """Whether trying again at once may help: refused or reset connections, 5xx, SlowDown."""
    return exc.transient


def is_lost_answer(exc: StorageUnavailableError) -> bool:
    """Whether the request may have been carried out although no answer came."""
    return exc.transient or exc.timed_out


class RetryBudget:
    """So many retries; successes give back what their own retries took, and a little more.

    All requests to a store share one, so that a server that is down gets each request once, not many times.
    """

    def __init__(self, retries: int) -> None:
        self._limit = float(retries)
        self.left = float(retries)

    def take(self) -> bool:
        """Take one retry; False when none is left."""
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def succeeded(self, retries: int) -> None:
        """Note a request that succeeded after so many retries."""
        self.left = min(self._limit, self.left + max(retries, _REFILL))


class Retries:
    """What one request may still wait for S3: `timeout_s` in all, counted while S3 fails it."""

    def __init__(self, policy: "RetryPolicy") -> None:
        self._policy = policy
        self._made = 0
        self._waited_s = 0.0
        self._failing_since: float | None = None

    async def pause(self, failure: StorageUnavailableError) -> bool:
        """Wait before the next attempt, at random and longer each time, or as long as S3 asks; False: give up."""
        policy, now = self._policy, self._policy.clock()
        if self._failing_since is None:
            self._failing_since = now
        remaining_s = policy.timeout_s - self._waited_s - (now - self._failing_since)
        if remaining_s <= 0 or not policy.budget.take():
            return False
        longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**self._made)
        self._made += 1
        await policy.sleep(min(max(longest_s * policy.chance(), failure.asked_s or 0.0), remaining_s))
        return True

    def answered(self) -> None:
        """Note that S3 answers; what was waited for so far stays counted."""
        if self._failing_since is not None:
            self._waited_s += self._policy.clock() - self._failing_since
            self._failing_since = None

    def succeeded(self) -> None:
        """Note that it is done, or got far enough for everything to be counted anew."""
        self._policy.budget.succeeded(self._made)
        self._made, self._waited_s, self._failing_since = 0, 0.0, None


class RetryPolicy:
    """Calls again for up to `timeout_s` after the first failure, within a budget; only for what may happen twice."""

    def __init__(
        self,
        *,
        timeout_s: float = 8.0,
        budget: RetryBudget | None = None,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout_s = timeout_s
        self.budget = RetryBudget(500) if budget is None else budget
        self.chance = chance
        self.sleep = sleep
        self.clock = clock

    def limited_to(self, timeout_s: float) -> Self:
        """Make a policy of the same budget for who does not wait as long."""
        return type(self)(
            timeout_s=min(timeout_s, self.timeout_s),
            budget=self.budget,
            chance=self.chance,
            sleep=self.sleep,
            clock=self.clock,
        )

    def begin(self) -> Retries:
        """Begin to count what one request waits."""
        return Retries(self)

    async def call(self, attempt: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call until it succeeds, fails for good, or may not be tried again."""
        return await self.call_while(is_transient, attempt, *args, **kwargs)

    async def call_while(
        self,
        worthwhile: Callable[[StorageUnavailableError], bool],
        attempt: Callable[_P, Awaitable[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call as `call` does, with another judgement of which failures deserve another attempt."""
        retries = self.begin()
        while True:
            try:
                result = await attempt(*args, **kwargs)
            except StorageUnavailableError as exc:
                if not worthwhile(exc) or not await retries.pause(exc):
                    raise
            else:
                retries.succeeded()
                return result
