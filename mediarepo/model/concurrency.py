"""Bounded admission with fair shares, single flight, task groups, and counts of what is in use.

Use one Admission for one resource, and take its place before anything that others wait for: who waits here should hold
nothing else that is scarce.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from mediarepo.errors import LimitExceededError
from mediarepo.model.requester import current_client

Value = TypeVar("Value")


class SingleFlight(Generic[Value]):
    """Runs one task per key; everybody who asks meanwhile waits for it.

    A waiter that is cancelled stops nobody else; leaving the context cancels what still runs.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Value]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def in_use(self) -> int:
        """How many tasks run."""
        return len(self._running)

    async def run(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Run the work for a key, or wait for the run in progress."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: Hashable, task: asyncio.Task[Value]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # marks it as seen when nobody waits any longer


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Run tasks as asyncio.TaskGroup does, but raise the first error itself, not in a group.

    When one fails, the others and the body are cancelled and waited for.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as exc:
        raise _first(exc) from exc


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


_RETRY_AFTER_S = 5


@dataclass(slots=True, eq=False)
class _Waiter:
    client: str
    target: str
    number: int
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """So many places, shared fairly among clients, and among what they are taken for (the target).

    - A client gets a place at once while it has fewer than `share`, or fewer than are free: a single one never takes
      more than half (or its share, whichever is more), so that somebody else finds a place.
    - A target (a host, a domain) never has more than `per_target` places, whoever asks.
    - A freed place goes to the waiting client that has the fewest; among equals in turn; within one to who came first.
    - Who waits longer than `wait_s` is refused; when more than `max_waiting` wait, the latest of the longest queue is.

    A refusal is LimitExceededError with a Retry-After: that there is no place is never a verdict.
    """

    def __init__(
        self,
        what: str,
        *,
        places: int,
        share: int = 1,
        per_target: int | None = None,
        max_waiting: int = 1_000,
        wait_s: float = 10.0,
    ) -> None:
        self._what = what
        self._places = places
        self._share = share
        self._per_target = places if per_target is None else per_target
        self._max_waiting = max_waiting
        self._wait_s = wait_s
        self._clients: Counter[str] = Counter()
        self._targets: Counter[str] = Counter()
        self._queues: dict[tuple[str, str], deque[_Waiter]] = {}
        self._number = 0
        self._served: dict[str, int] = {}

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return self._clients.total()

    @property
    def waiting(self) -> int:
        """How many callers wait for a place."""
        return sum(len(queue) for queue in self._queues.values())

    @asynccontextmanager
    async def enter(
        self, *, target: str = "", client: str | None = None, at_most: int | None = None
    ) -> AsyncIterator[None]:
        """Take a place for the client (the current one unless told), or raise LimitExceededError.

        With `at_most`, nobody waits: the target may have only so many places just now.
        """
        name = current_client().name if client is None else client
        if at_most is not None and self._targets[target] >= at_most:
            raise self._refusal()
        if self._may(name, target):
            self._take(name, target)
        elif at_most is not None:
            raise self._refusal()
        else:
            await self._wait(name, target)
        try:
            yield
        finally:
            self._give_back(name, target)

    async def _wait(self, client: str, target: str) -> None:
        self._number += 1
        waiter = _Waiter(client, target, self._number)
        self._queues.setdefault((client, target), deque()).append(waiter)
        self._shed()
        try:
            async with asyncio.timeout(self._wait_s):
                await waiter.admitted
        except TimeoutError as exc:
            self._leave(waiter)
            raise self._refusal() from exc
        except BaseException:
            self._leave(waiter)
            raise

    def _leave(self, waiter: _Waiter) -> None:
        """Stop waiting, and pass on a place that was given in this very moment."""
        queue = self._queues.get((waiter.client, waiter.target))
        if queue is not None and waiter in queue:
            self._remove(waiter)
        elif waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.exception() is None:
            self._give_back(waiter.client, waiter.target)

    def _remove(self, waiter: _Waiter) -> None:
        queue = self._queues[waiter.client, waiter.target]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.client, waiter.target]

    def _shed(self) -> None:
        """Refuse the latest of the longest queue of the client with the most waiters when too many wait."""
        if self.waiting <= self._max_waiting:
            return
        waiting: Counter[str] = Counter()
        for (client, _), queue in self._queues.items():
            waiting[client] += len(queue)
        most = waiting.most_common(1)[0][0]
        queue = max((queue for (client, _), queue in self._queues.items() if client == most), key=len)
        waiter = queue[-1]
        self._remove(waiter)
        waiter.admitted.set_exception(self._refusal())

    def _may(self, client: str, target: str) -> bool:
        free = self._places - self.in_use
        if free <= 0 or self._targets[target] >= self._per_target:
            return False
        return self._clients[client] < max(self._share, free)

    def _take(self, client: str, target: str) -> None:
        self._clients[client] += 1
        self._targets[target] += 1
        self._number += 1
        self._served[client] = self._number

    def _give_back(self, client: str, target: str) -> None:
        for counts, key in ((self._clients, client), (self._targets, target)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]
        self._admit()

    def _admit(self) -> None:
        """Give free places to who waits for them."""
        while self.in_use < self._places:
            heads = [queue[0] for (client, target), queue in self._queues.items() if self._may(client, target)]
            if not heads:
                break
            waiter = min(heads, key=self._rank)
            self._remove(waiter)
            if waiter.admitted.cancelled():
                continue
            self._take(waiter.client, waiter.target)
            waiter.admitted.set_result(None)
        if not self._queues:
            self._served.clear()

    def _rank(self, waiter: _Waiter) -> tuple[int, int, int]:
        return self._clients[waiter.client], self._served.get(waiter.client, 0), waiter.number

    def _refusal(self) -> LimitExceededError:
        return LimitExceededError(f"too many requests {self._what} just now", retry_after_s=_RETRY_AFTER_S)


class Waiters:
    """A bound on waiting requests, with fair shares: no client may have more than there are free places.

    So one alone gets half, two get a third each, and the next always finds a place.
    """

    def __init__(self, what: str, *, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._clients: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """How many wait."""
        return self._clients.total()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count the current client as waiting, or raise LimitExceededError."""
        client = current_client().name
        if self._clients[client] >= self._limit - self.in_use:
            raise LimitExceededError(f"too many requests {self._what} just now", retry_after_s=_RETRY_AFTER_S)
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]


class InUse:
    """Counts by resource name; one that stays above 0 in an idle process has leaked."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._shown: dict[str, list[Callable[[], float]]] = {}

    @contextmanager
    def holding(self, resource: str, amount: int = 1) -> Iterator[None]:
        """Count one as held until the block ends."""
        self._held[resource] += amount
        try:
            yield
        finally:
            self._held[resource] -= amount

    def show(self, resource: str, read: Callable[[], float]) -> None:
        """Read a number from where it is kept; several of one name are added up."""
        self._shown.setdefault(resource, []).append(read)

    def read(self) -> dict[str, float]:
        """Return all numbers."""
        numbers: dict[str, float] = {resource: float(amount) for resource, amount in self._held.items()}
        for resource, reads in self._shown.items():
            numbers[resource] = numbers.get(resource, 0.0) + sum(read() for read in reads)
        return dict(sorted(numbers.items()))


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The phases of a shutdown: `stop`, then not ready but serving (`delay_over`), then draining (`drain_over`)."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    delay_over: asyncio.Event = field(default_factory=asyncio.Event)
    drain_over: asyncio.Event = field(default_factory=asyncio.Event)

    def advance(self) -> bool:
        """End the current phase; False when there is none left."""
        for event in (self.stop, self.delay_over, self.drain_over):
            if not event.is_set():
                event.set()
                return True
        return False

    async def delay(self, delay_ms: int) -> None:
        """Wait until the shutdown delay has passed or was cut short."""
        try:
            async with asyncio.timeout(delay_ms / 1000):
                await self.delay_over.wait()
        except TimeoutError:
            self.delay_over.set()
