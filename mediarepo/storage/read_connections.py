"""The connections that downloads share for reading from S3."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from mediarepo.storage.errors import StorageUnavailableError

_SLOW_SHARE = 4
"""Slow clients have one in so many connections, all together."""
_SLOW_WAIT_S = 60.0


class ReadConnections:
    """So many connections; a download whose client takes no bytes lends its connection to whoever waits for one.

    Whoever waits longer than `wait_s` gets StorageUnavailableError. `on_wait` hears how long each wait was, in seconds.
    """

    def __init__(self, limit: int, wait_s: float) -> None:
        self.limit = limit
        self.on_wait: Callable[[float], object] = lambda _: None
        self._wait_s = wait_s
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._blocked: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._slow = asyncio.Semaphore(max(1, limit // _SLOW_SHARE))
        self.in_use = 0

    @asynccontextmanager
    async def share_of_slow(self) -> AsyncIterator[None]:
        """Wait for one of the few connections shared by slow clients.

        Raises StorageUnavailableError when that takes too long.
        """
        try:
            async with asyncio.timeout(_SLOW_WAIT_S):
                await self._slow.acquire()
        except TimeoutError as exc:
            raise StorageUnavailableError("slow clients waited too long for their connections", timed_out=True) from exc
        try:
            yield
        finally:
            self._slow.release()

    @property
    def waiting(self) -> int:
        """Return how many wait for a connection."""
        return len(self._waiters)

    async def acquire(self, *, wait_s: float | None = None) -> None:
        """Take a connection, if need be from a blocked download.

        Raises StorageUnavailableError when none is free in time.
        """
        if self.in_use >= self.limit:
            self._reclaim()
        if self.in_use < self.limit and not self._waiters:
            self.in_use += 1
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiters.append(granted)
        began = perf_counter()
        try:
            async with asyncio.timeout(self._wait_s if wait_s is None else wait_s):
                await granted
        except BaseException as exc:
            self._withdraw(granted)
            if isinstance(exc, TimeoutError):
                raise StorageUnavailableError("none of max_connections was free", timed_out=True) from exc
            raise
        finally:
            self.on_wait(perf_counter() - began)

    def release(self) -> None:
        """Give a connection back."""
        self.in_use -= 1
        self._grant()

    def blocked(self, holder: object, give_back: Callable[[], None]) -> None:
        """Note that a download's client takes no bytes; `give_back` is called once, if its connection is wanted."""
        self._blocked[holder] = give_back
        if self._waiters:
            self._reclaim()

    def unblocked(self, holder: object) -> None:
        """Note that the client takes bytes again, or that the connection was given back."""
        self._blocked.pop(holder, None)

    def _reclaim(self) -> None:
        """Have the download that has been blocked the longest give its connection back."""
        if self._blocked:
            _, give_back = self._blocked.popitem(last=False)
            give_back()

    def _withdraw(self, granted: asyncio.Future[None]) -> None:
        if granted in self._waiters:
            self._waiters.remove(granted)
        elif granted.done() and not granted.cancelled():
            self.release()

    def _grant(self) -> None:
        while self._waiters and self.in_use < self.limit:
            granted = self._waiters.popleft()
            if not granted.done():
                self.in_use += 1
                granted.set_result(None)
