"""Holds leases for as long as the work takes; runs scheduled jobs once for all processes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import structlog

from mediarepo.db.database import LeaseLostError, fenced
from mediarepo.db.import_ledger import ImportRuns
from mediarepo.db.tasks import SERVER_LEASE, BacklogTable, JobRuns, Leases
from mediarepo.errors import MatrixError
from mediarepo.model.concurrency import InUse
from mediarepo.model.tasks import JobRun, Lease

log = structlog.get_logger(__name__)

_BEATS = 3
_RELEASE_TIMEOUT_S = 10
_PRESENCE_MS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """Holds leases and renews them until the work is done; a dead process's lease expires after `duration_ms`.

    When a lease is lost, the work under it is cancelled and LeaseLostError raised instead.
    """

    leases: Leases
    duration_ms: int
    in_use: InUse = field(default_factory=InUse)

    @contextlib.asynccontextmanager
    async def acquire(self, name: str) -> AsyncIterator[Lease | None]:
        """Hold a lease, or None while somebody else does; on success the work's own commit ends the lease."""
        lease = await self.leases.acquire(name, self.duration_ms)
        if lease is None:
            yield None
            return
        with self.in_use.holding("leases"):
            async with self._renewed(lease):
                yield lease

    @contextlib.asynccontextmanager
    async def _renewed(self, lease: Lease) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None) as work, self._beating(lease, work):
                yield
        except TimeoutError as exc:
            if not work.expired():
                raise
            log.warning("lease_lost", lease=lease.name)
            raise LeaseLostError("another process has taken this work over") from exc

    @contextlib.asynccontextmanager
    async def _beating(self, lease: Lease, work: asyncio.Timeout) -> AsyncIterator[None]:
        beating = asyncio.create_task(self._beat(lease, work), name=f"lease {lease.name}")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.shield(self._let_go(lease, beating))

    async def _beat(self, lease: Lease, work: asyncio.Timeout) -> None:
        while True:
            await asyncio.sleep(self.duration_ms / 1000 / _BEATS)
            try:
                if not await self.leases.renew(lease, self.duration_ms):
                    work.reschedule(asyncio.get_running_loop().time())
                    return
            except MatrixError as exc:
                log.warning("lease_renewal_failed", lease=lease.name, reason=exc.message)

    async def _let_go(self, lease: Lease, beating: asyncio.Task[None]) -> None:
        await asyncio.wait([beating])
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                await self.leases.release(lease)
        except (MatrixError, TimeoutError) as exc:
            log.warning("lease_release_failed", lease=lease.name, reason=str(exc))


class Presence:
    """A lease that says that a server runs; it expires when the process dies or is cut off."""

    def __init__(self, *, leases: Leases, name: str) -> None:
        self._leases = leases
        self._name = f"{SERVER_LEASE}{name}"
        self._lease: Lease | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._beat()
        self._task = asyncio.create_task(self._beat_for_ever(), name="presence")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                if self._lease is not None:
                    await self._leases.release(self._lease)
        except (MatrixError, TimeoutError) as exc:
            log.warning("lease_release_failed", lease=self._name, reason=str(exc))

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_PRESENCE_MS / 1000 / _BEATS)
            await self._beat()

    async def _beat(self) -> None:
        """Renew the lease, or take it anew: after an outage, or when the tables were made anew."""
        try:
            if self._lease is None or not await self._leases.renew(self._lease, _PRESENCE_MS):
                self._lease = await self._leases.acquire(self._name, _PRESENCE_MS)
        except MatrixError as exc:
            log.info("lease_not_renewed", lease=self._name, reason=exc.message)


Figures = dict[str, Any]

_SLACK = 0.5
"""A run counts as this interval's when it began within so much of it; clocks of processes are never in step."""


def lease_of(name: str) -> str:
    """Return the name of a job's lease."""
    return f"job {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJobs:
    """Runs a job when it is due and no other process runs it; a dead process's job is taken over after its lease."""

    lease_holder: LeaseHolder
    runs: JobRuns

    async def once(self, name: str, interval_ms: int, work: Callable[[], Awaitable[Figures | None]]) -> bool:
        """Run work unless it ran within the interval, or is running; returns whether it ran here."""
        async with self.lease_holder.acquire(lease_of(name)) as lease:
            if lease is None or not await self.runs.begin(name, int(interval_ms * _SLACK)):
                return False
            try:
                with fenced(lease):
                    result = await work()
            except LeaseLostError:
                raise  # the row is that of whoever has taken it over
            except Exception as exc:  # recorded as the job's result, then raised again
                await self.runs.finish(name, error=str(exc) or type(exc).__name__, result=None)
                raise
            await self.runs.finish(name, error=None, result=result)
            return True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReports:
    """Reads when scheduled jobs last ran, what waits for them, and how far imports are."""

    runs: JobRuns
    backlog: BacklogTable
    imports: ImportRuns

    async def read(self) -> list[JobRun]:
        """Return all job runs."""
        return await self.runs.read()
