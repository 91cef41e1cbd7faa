"""Background tasks that admins start, and the types of tasks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from mediarepo.db.database import LeaseLostError, fenced
from mediarepo.db.tasks import TaskTable
from mediarepo.errors import InvalidParamError, MatrixError, NotFoundError
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.tasks import Lease, Queue, Task, TaskState
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.fsck import FsckLevel, FsckProgress, Repairs
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.retention import Retention, RetentionTally
from mediarepo.services.stores import Stores
from mediarepo.storage.store import Store
from mediarepo.telemetry.logs import error_text

log = structlog.get_logger(__name__)

_AT_ONCE = 10
_REPORT_EVERY_S = 2.0
_MAX_ATTEMPTS = 5
_KEPT_MS = 90 * 24 * 3_600_000

Result = TypeVar("Result")


class TaskCancelledError(Exception):
    """The task was cancelled."""


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """Reports a task's progress; after a crash, `task.progress` has the last report."""

    task: Task
    table: TaskTable
    lease: Lease

    async def watch(self, work: Awaitable[Result], progress: Callable[[], dict[str, Any]]) -> Result:
        """Run work, and report on it every few seconds; an error of `report` ends the work."""
        doing = asyncio.ensure_future(work)
        try:
            while not doing.done():
                await asyncio.wait([doing], timeout=_REPORT_EVERY_S)
                await self.report(progress())
            return await doing
        finally:
            doing.cancel()
            await asyncio.wait([doing])

    async def report(self, progress: dict[str, Any]) -> None:
        """Record progress.

        Raises TaskCancelledError when the task is to stop, LeaseLostError when another process has it.
        """
        if await self.table.report(self.task.task_id, self.lease, progress):
            raise TaskCancelledError


Work = Callable[[TaskProgress], Awaitable[dict[str, Any]]]
"""Does a task and gives its result; it may be begun again after a crash, so each step can be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Queues, runs and cancels tasks."""

    table: TaskTable
    lease_holder: LeaseHolder
    works: Mapping[str, Work]
    isolation: BatchIsolation

    async def add(
        self,
        kind: str,
        arguments: dict[str, Any],
        *,
        created_by: str,
        homeserver: str | None,
        client_address: str | None = None,
    ) -> Task:
        """Queue a task. Raises InvalidParamError when there is no such kind."""
        if kind not in self.works:
            raise InvalidParamError(f"there are no tasks of the kind {kind!r}, only {', '.join(sorted(self.works))}")
        act = AdminAction(by=created_by, owner=OPERATOR, action="begin_task", client_address=client_address)
        return await self.table.add(kind, arguments, homeserver=homeserver, act=act)

    async def get(self, task_id: int) -> Task:
        """Return a task. Raises NotFoundError when there is none."""
        task = await self.table.get(task_id)
        if task is None:
            raise NotFoundError("there is no such task")
        return task

    async def cancel(self, task_id: int, by: str, *, client_address: str | None = None) -> Task:
        """Stop a task at its next step. Raises NotFoundError when there is none."""
        act = AdminAction(by=by, owner=OPERATOR, action="cancel_task", client_address=client_address)
        task = await self.table.cancel(task_id, act)
        if task is None:
            raise NotFoundError("there is no such task")
        return task

    async def run_waiting(self) -> None:
        """Run waiting tasks one after the other, until all others are run by other processes."""
        for task_id in await self.table.waiting(_AT_ONCE):
            async with self.lease_holder.acquire(f"task {task_id}") as lease:
                if lease is not None:
                    await self.isolation.run(Queue.TASKS, [task_id], partial(self._run_each, lease))

    async def _run_each(self, lease: Lease, task_ids: Sequence[int]) -> int:
        for task_id in task_ids:
            await self._run(task_id, lease)
        return len(task_ids)

    async def _run(self, task_id: int, lease: Lease) -> None:
        task = await self.table.begin(task_id, lease)
        if task is None:
            return
        try:
            state, result, error = (
                (TaskState.CANCELLED, None, None) if task.cancelling else await self._outcome(task, lease)
            )
        except LeaseLostError:
            log.warning("task_taken_over", task=task_id)
            return
        await self.table.end(task_id, lease, state, result=result, error=error)
        log.info("task_ended", task=task_id, kind=task.kind, state=state, error=error)

    async def _outcome(self, task: Task, lease: Lease) -> tuple[TaskState, dict[str, Any] | None, str | None]:
        if task.attempts > _MAX_ATTEMPTS:
            return TaskState.FAILED, None, "every process that ran it died"
        if task.kind not in self.works:
            return TaskState.FAILED, None, "this version of mediarepo has no such task"
        try:
            with fenced(lease):
                return TaskState.DONE, await self.works[task.kind](TaskProgress(task, self.table, lease)), None
        except TaskCancelledError:
            return TaskState.CANCELLED, None, None
        except LeaseLostError:
            raise
        except MatrixError as exc:
            return TaskState.FAILED, None, exc.message
        except Exception as exc:  # stored as the task's error
            log.exception("task_failed", task=task.task_id, kind=task.kind)
            return TaskState.FAILED, None, error_text(exc)

    async def forget_old(self) -> None:
        """Delete tasks that ended long ago."""
        await self.table.forget_ended(_KEPT_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTypes:
    """Runs tasks, each of which can be resumed where it was interrupted."""

    retention: Retention
    repairs: Repairs
    stores: Stores

    def by_kind(self) -> Mapping[str, Work]:
        """Return the task types by name."""
        return {"retention_plan": self._plan, "retention": self._retain, "fsck": self._check}

    async def _plan(self, steps: TaskProgress) -> dict[str, Any]:
        policy, tally = self.retention.policy(_text(steps, "policy")), RetentionTally()
        plan = await steps.watch(self.retention.plan(policy, tally), lambda: _figures(tally))
        return asdict(plan)

    async def _retain(self, steps: TaskProgress) -> dict[str, Any]:
        policy, tally = self.retention.policy(_text(steps, "policy")), RetentionTally()
        work = self.retention.run(policy, steps.task.created_by, tally)
        return asdict(await steps.watch(work, lambda: _figures(tally)))

    async def _check(self, steps: TaskProgress) -> dict[str, Any]:
        """Check one store, or all; stores that were done before a crash are not checked again."""
        wanted = steps.task.arguments.get("store")
        stores = list(self.stores.by_name.values()) if wanted is None else [self.stores.named(str(wanted))]
        results = dict[str, Any](steps.task.progress.get("done", {}))
        for store in stores:
            if store.name not in results:
                results[store.name] = await self._check_one(store, steps, results)
        return {"stores": results}

    async def _check_one(self, store: Store, steps: TaskProgress, done: dict[str, Any]) -> dict[str, Any]:
        progress = FsckProgress()

        async def check() -> None:
            async for drift in self.repairs.fsck.check(store, FsckLevel(), progress, lambda: None):
                progress.found[drift.kind] += 1

        await steps.watch(check(), lambda: {"done": done, "store": store.name, "objects": progress.objects})
        return {"objects": progress.objects, "rows": progress.rows, "found": progress.found}


def _text(steps: TaskProgress, name: str) -> str:
    value = steps.task.arguments.get(name)
    if not isinstance(value, str):
        raise InvalidParamError(f"the task needs {name}")
    return value


def _figures(tally: RetentionTally) -> dict[str, Any]:
    return {"count": tally.count, "size_bytes": tally.size_bytes}
