"""Connections for reading from S3, shared by all downloads: who is not being read from gives its own back."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from mediarepo.storage.errors import StorageUnavailableError

_RETRY_AFTER_S = 5


class ReadConnections:
    """So many connections; a download whose client takes no bytes lends its connection to whoever waits for one.

    Whoever waits longer than `wait_s` gets StorageUnavailableError.
    """

    def __init__(self, limit: int, wait_s: float) -> None:
        self._limit = limit
        self._wait_s = wait_s
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._blocked: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self.in_use = 0

    @property
    def waiting(self) -> int:
        """Return how many wait for a connection."""
        return len(self._waiters)

    async def acquire(self, *, wait_s: float | None = None) -> None:
        """Take a connection, from a download that is blocked if none is free."""
        if self.in_use >= self._limit:
            self._reclaim()
        if self.in_use < self._limit and not self._waiters:
            self.in_use += 1
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiters.append(granted)
        try:
            async with asyncio.timeout(self._wait_s if wait_s is None else wait_s):
                await granted
        except BaseException as exc:
            self._withdraw(granted)
            if isinstance(exc, TimeoutError):
                raise StorageUnavailableError(
                    "none of max_connections was free", retry_after_s=_RETRY_AFTER_S, timed_out=True
                ) from exc
            raise

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
        while self._waiters and self.in_use < self._limit:
            granted = self._waiters.popleft()
            if not granted.done():
                self.in_use += 1
                granted.set_result(None)
