"""When a request to S3 is retried."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from mediarepo.storage.errors import StorageUnavailableError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PAUSES_S = (0.1, 0.4)


def is_transient(exc: StorageUnavailableError) -> bool:
    """Whether trying again at once may help: refused or reset connections, 5xx, SlowDown."""
    return exc.transient


def is_lost_answer(exc: StorageUnavailableError) -> bool:
    """Whether the request may have been carried out although no answer came."""
    return exc.transient or exc.timed_out


class RetryPolicy:
    """Calls up to three times, with growing, scattered pauses; only for what may safely happen twice."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance

    async def call(self, attempt: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call until it succeeds, fails for good, or transient failures have used up the attempts."""
        return await self.call_while(is_transient, attempt, *args, **kwargs)

    async def call_while(
        self,
        worthwhile: Callable[[StorageUnavailableError], bool],
        attempt: Callable[_P, Awaitable[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call as `call` does, with another judgement of which failures deserve another attempt."""
        for pause_s in _PAUSES_S:
            try:
                return await attempt(*args, **kwargs)
            except StorageUnavailableError as exc:
                if not worthwhile(exc):
                    raise
            await asyncio.sleep(pause_s * (0.5 + self._chance()))
        return await attempt(*args, **kwargs)
