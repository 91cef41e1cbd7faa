"""A few worker processes, started when needed, replaced when they misbehave."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import structlog

from mediarepo.config.thumbnails import ThumbnailsConfig
from mediarepo.images.errors import too_busy
from mediarepo.images.memory import Source
from mediarepo.images.processes import Measured, Worker
from mediarepo.model.thumbnails import RenderedThumbnail, ThumbnailSpec

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a job made: `data` holds all pictures, one behind the other, at the offsets that `thumbnails` name."""

    thumbnails: list[RenderedThumbnail]
    data: bytes


class WorkerPool:
    """Gives each job to a worker of its own; leaving the pool kills all of them."""

    def __init__(self, config: ThumbnailsConfig) -> None:
        self._config = config
        self._free = asyncio.Semaphore(config.worker_count)
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._waiting = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        workers, self._idle = [*self._idle, *self._busy], []
        await asyncio.gather(*(worker.end() for worker in workers))

    @property
    def pids(self) -> list[int]:
        """The process ids of all workers."""
        return [worker.pid for worker in (*self._idle, *self._busy)]

    async def render(self, source: Source, specs: Sequence[ThumbnailSpec]) -> Rendered:
        """Make thumbnails of a source; LimitExceededError when too many jobs wait already, or this one for too long."""
        await self._wait_for_turn()
        try:
            return await self._render(source, specs)
        finally:
            self._free.release()

    async def measure(self, source: Source) -> Measured:
        """Look at a picture's header; PictureError when it is none, LimitExceededError as above."""
        await self._wait_for_turn()
        try:
            source.seal()
            worker = await self._hire()
            result = os.memfd_create("mediarepo-thumbnails", os.MFD_CLOEXEC)
            try:
                return await worker.measure(source.fd, result)
            finally:
                os.close(result)
                await asyncio.shield(self._dismiss(worker, idle=worker.has_answered))
        finally:
            self._free.release()

    async def _wait_for_turn(self) -> None:
        if self._waiting >= self._config.queue_limit:
            raise too_busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._config.queue_timeout_ms / 1000):
                await self._free.acquire()
        except TimeoutError as exc:
            raise too_busy() from exc
        finally:
            self._waiting -= 1

    async def _render(self, source: Source, specs: Sequence[ThumbnailSpec]) -> Rendered:
        source.seal()
        worker = await self._hire()
        result = os.memfd_create("mediarepo-thumbnails", os.MFD_CLOEXEC)
        try:
            thumbnails = await worker.render(source.fd, result, specs)
            return Rendered(thumbnails, _read_all(result, thumbnails))
        finally:
            os.close(result)
            await asyncio.shield(self._dismiss(worker, idle=worker.has_answered))

    async def _hire(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if not worker.should_retire():
                self._busy.add(worker)
                return worker
            await worker.end()
        worker = Worker(self._config)
        self._busy.add(worker)
        try:
            await worker.started()
        except BaseException:
            await self._dismiss(worker, idle=False)
            raise
        return worker

    async def _dismiss(self, worker: Worker, *, idle: bool) -> None:
        """Keep a worker that has answered for the next job; kill any other."""
        self._busy.discard(worker)
        if idle and not worker.should_retire():
            self._idle.append(worker)
            return
        await worker.end()


def _read_all(result: int, thumbnails: list[RenderedThumbnail]) -> bytes:
    size_bytes = sum(thumbnail.size_bytes for thumbnail in thumbnails)
    return os.pread(result, size_bytes, 0) if size_bytes else b""
