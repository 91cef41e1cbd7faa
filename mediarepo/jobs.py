"""The scheduler: runs jobs at intervals."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

import structlog

from mediarepo.errors import MatrixError
from mediarepo.model.concurrency import InUse

log = structlog.get_logger(__name__)

_JITTER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledJob:
    """Work at a regular interval; `last_time` asks for one more run when the process stops."""

    name: str
    interval_ms: int
    run: Callable[[], Awaitable[object]]
    last_time: bool = False


class Scheduler:
    """Runs jobs until left; a failed one is tried again at its next time."""

    def __init__(self, jobs: list[ScheduledJob], in_use: InUse | None = None) -> None:
        self._jobs = jobs
        self._in_use = in_use or InUse()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._repeat(job), name=f"job {job.name}") for job in self._jobs]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for job in self._jobs:
            if job.last_time:
                await self._once(job)

    async def _repeat(self, job: ScheduledJob) -> None:
        while True:
            await asyncio.sleep(job.interval_ms / 1000 * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret
            await self._once(job)

    async def _once(self, job: ScheduledJob) -> None:
        try:
            with self._in_use.holding("jobs"):
                await job.run()
        except MatrixError as exc:
            log.warning("job_postponed", job=job.name, reason=str(exc))
        except Exception:  # logged; the job runs again at its next time
            log.exception("job_failed", job=job.name)
