"""How fast an import goes: as the operator allows, and as S3 stands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_GOOD_RUN = 50
_BURST_S = 0.5


class Allowance:
    """So much a second, of whatever; who takes more than there is waits until it has come in. None: without limit."""

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._free_at = 0.0

    async def take(self, amount: float) -> None:
        """Take some, waiting until it is affordable."""
        if self._per_s is None or amount <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - _BURST_S) + amount / self._per_s
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Pace:
    """Bytes and requests per second, and how much goes on at once: half of it when S3 asks for less, then ever more."""

    def __init__(self, jobs: int, *, bytes_per_s: float | None = None, requests_per_s: float | None = None) -> None:
        self.bytes = Allowance(bytes_per_s)
        self.requests = Allowance(requests_per_s)
        self.allowed = jobs
        self.active = 0
        self._jobs = jobs
        self._good = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Do one thing when it is one's turn."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.active < self.allowed)
            self.active += 1
        try:
            yield
        finally:
            async with self._changed:
                self.active -= 1
                self._changed.notify_all()

    def slow_down(self) -> None:
        """Do half as much at once from now on."""
        self._good = 0
        self.allowed = max(1, self.allowed // 2)

    def went_well(self) -> None:
        """Do more at once after a while without trouble."""
        self._good += 1
        if self._good >= _GOOD_RUN and self.allowed < self._jobs:
            self._good = 0
            self.allowed += 1
