"""A pool of sandboxed processes, started on demand and replaced when they misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, Self, TypeVar

from mediarepo.model.admission import Admission


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
        what: str,
    ) -> None:
        """At most `queue_limit` jobs wait, none longer than the time given; `what` ends the words of the refusal."""
        self._start = start
        self._places = Admission(
            what, places=max_processes, share=max_processes, max_waiting=queue_limit, wait_s=queue_timeout_s
        )
        self._idle: list[Process] = []
        self._busy: set[Process] = set()

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
        return self._places.waiting

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """Lend a process for one job; it is used again only if it has answered."""
        async with self._places.enter():
            process = await self._acquire()
            try:
                yield process
            finally:
                await asyncio.shield(self._release(process, usable=process.has_answered))

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
