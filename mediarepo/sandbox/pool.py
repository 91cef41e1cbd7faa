"""A few sandboxed processes, started when needed, replaced when they misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, Self, TypeVar

from mediarepo.errors import MatrixError


class PooledProcess(Protocol):
    """What the pool asks of a process."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def has_answered(self) -> bool:
        """Whether its last job was answered."""
        ...

    async def started(self) -> object:
        """Wait until it can work."""
        ...

    def should_retire(self) -> bool:
        """Whether it must be replaced."""
        ...

    async def end(self) -> None:
        """Kill it."""
        ...


Process = TypeVar("Process", bound=PooledProcess)


class ProcessPool(Generic[Process]):
    """Gives each job a process of its own; leaving the pool kills all of them."""

    def __init__(
        self,
        start: Callable[[], Process],
        *,
        max_processes: int,
        queue_limit: int,
        queue_timeout_s: float,
        too_busy: Callable[[], MatrixError],
    ) -> None:
        """`too_busy` makes the refusal when `queue_limit` jobs wait already, or one has waited for too long."""
        self._start = start
        self._free = asyncio.Semaphore(max_processes)
        self._queue_limit = queue_limit
        self._queue_timeout_s = queue_timeout_s
        self._too_busy = too_busy
        self._idle: list[Process] = []
        self._busy: set[Process] = set()
        self._waiting = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        processes, self._idle = [*self._idle, *self._busy], []
        await asyncio.gather(*(process.end() for process in processes))

    @property
    def pids(self) -> list[int]:
        """The process ids of all."""
        return [process.pid for process in (*self._idle, *self._busy)]

    @property
    def busy(self) -> int:
        """How many work."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a process."""
        return self._waiting

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """Lend a process for one job; it is used again only if it has answered."""
        await self._wait_for_turn()
        try:
            process = await self._acquire()
            try:
                yield process
            finally:
                await asyncio.shield(self._release(process, usable=process.has_answered))
        finally:
            self._free.release()

    async def _wait_for_turn(self) -> None:
        if self._waiting >= self._queue_limit:
            raise self._too_busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._free.acquire()
        except TimeoutError as exc:
            raise self._too_busy() from exc
        finally:
            self._waiting -= 1

    async def _acquire(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if not process.should_retire():
                self._busy.add(process)
                return process
            await process.end()
        process = self._start()
        self._busy.add(process)
        try:
            await process.started()
        except BaseException:
            await self._release(process, usable=False)
            raise
        return process

    async def _release(self, process: Process, *, usable: bool) -> None:
        self._busy.discard(process)
        if usable and not process.should_retire():
            self._idle.append(process)
            return
        await process.end()
