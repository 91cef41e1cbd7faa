"""The connections that downloads share for reading from S3, fairly among clients."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from mediarepo.storage.errors import StorageUnavailableError

_SLOW_SHARE = 4
"""Slow clients have one in so many connections, all together."""
_SLOW_WAIT_S = 60.0


class FairSlots:
    """So many slots; a freed one goes to the waiting clients in turn, and within one to who came first.

    With `keep_free`, a client gets a slot only while it has none, or fewer than are free: one alone gets half, two get
    a third each, so that somebody else finds one at once.
    """

    def __init__(self, limit: int, *, keep_free: bool) -> None:
        self._limit = limit
        self._keep_free = keep_free
        self._held: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self.in_use = 0
        self.waiting = 0

    def may_take(self, client: str, *, freed_by: str | None = None) -> bool:
        """Whether there is a slot for the client, or would be if another, or itself, gave one back."""
        free, held = self._limit - self.in_use, self._held[client]
        if freed_by is not None:
            free, held = free + 1, held - (freed_by == client)
        if not self._keep_free:
            return free > 0 and not self._queues
        return free > 0 and held < max(1, free)

    def is_wanted_from(self, client: str) -> bool:
        """Whether somebody who waits could have the slot that the client would give back."""
        return any(self.may_take(one, freed_by=client) for one in self._queues)

    def take(self, client: str) -> None:
        """Take a slot, which `may_take` has allowed."""
        self._held[client] += 1
        self.in_use += 1

    async def wait(self, client: str, wait_s: float) -> None:
        """Wait for a slot, and take it; raises TimeoutError after `wait_s`."""
        granted = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(granted)
        self.waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                await granted
        except BaseException:
            self._withdraw(client, granted)
            raise

    def release(self, client: str) -> None:
        """Give a slot back."""
        self.in_use -= 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._grant()

    def _withdraw(self, client: str, granted: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue is not None and granted in queue:
            queue.remove(granted)
            self.waiting -= 1
            if not queue:
                del self._queues[client]
        elif granted.done() and not granted.cancelled():
            self.release(client)

    def _grant(self) -> None:
        while (free := self._limit - self.in_use) > 0:
            most = max(1, free) if self._keep_free else self._limit
            client = next((one for one in self._queues if self._held[one] < most), None)
            if client is None:
                return
            queue = self._queues.pop(client)
            granted = queue.popleft()
            self.waiting -= 1
            if queue:
                self._queues[client] = queue  # at the end: it is the others' turn
            if not granted.done():
                self.take(client)
                granted.set_result(None)


class ReadConnections:
    """So many connections; a download whose client takes no bytes lends its connection to whoever waits for one.

    Clients share them as FairSlots says. Whoever waits longer than `wait_s` gets StorageUnavailableError. `on_wait`
    hears how long each wait was, in seconds.
    """

    def __init__(self, limit: int, wait_s: float) -> None:
        self.limit = limit
        self.on_wait: Callable[[float], object] = lambda _: None
        self._wait_s = wait_s
        self._slots = FairSlots(limit, keep_free=True)
        self._slow = FairSlots(max(1, limit // _SLOW_SHARE), keep_free=False)
        self._blocked: OrderedDict[object, tuple[str, Callable[[], None]]] = OrderedDict()

    @asynccontextmanager
    async def share_of_slow(self, client: str) -> AsyncIterator[None]:
        """Wait for one of the few connections shared by slow clients.

        Raises StorageUnavailableError when that takes too long.
        """
        if self._slow.may_take(client):
            self._slow.take(client)
        else:
            try:
                await self._slow.wait(client, _SLOW_WAIT_S)
            except TimeoutError as exc:
                words = "slow clients waited too long for their connections"
                raise StorageUnavailableError(words, timed_out=True) from exc
        try:
            yield
        finally:
            self._slow.release(client)

    @property
    def in_use(self) -> int:
        """Return how many connections are taken."""
        return self._slots.in_use

    @property
    def waiting(self) -> int:
        """Return how many wait for a connection."""
        return self._slots.waiting

    async def acquire(self, client: str, *, wait_s: float | None = None) -> None:
        """Take a connection, if need be from a blocked download.

        Raises StorageUnavailableError when none is free in time.
        """
        if not self._slots.may_take(client):
            self._reclaim(client)
        if self._slots.may_take(client):
            self._slots.take(client)
            return
        began = perf_counter()
        try:
            await self._slots.wait(client, self._wait_s if wait_s is None else wait_s)
        except TimeoutError as exc:
            raise StorageUnavailableError("none of max_connections was free", timed_out=True) from exc
        finally:
            self.on_wait(perf_counter() - began)

    def release(self, client: str) -> None:
        """Give a connection back."""
        self._slots.release(client)

    def blocked(self, holder: object, client: str, give_back: Callable[[], None]) -> None:
        """Note that a download's client takes no bytes; `give_back` is called once, if its connection is wanted."""
        if self._slots.is_wanted_from(client):
            give_back()
        else:
            self._blocked[holder] = client, give_back

    def unblocked(self, holder: object) -> None:
        """Note that the client takes bytes again, or that the connection was given back."""
        self._blocked.pop(holder, None)

    def _reclaim(self, client: str) -> None:
        """Have the download that has been blocked the longest give its connection back, if the client may have it."""
        for holder, (of_client, give_back) in self._blocked.items():
            if self._slots.may_take(client, freed_by=of_client):
                del self._blocked[holder]
                give_back()
                return
