"""Leases, runs of scheduled jobs, and tasks."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Lease:
    """Held by one process of the fleet; each holder's `fence` is larger than the one's before."""

    name: str
    fence: int


@dataclass(frozen=True, slots=True)
class JobRun:
    """The last time that regular work was done by any process; `finished_ts` None: it runs, or its process died."""

    name: str
    started_ts: int
    finished_ts: int | None
    error: str | None
    result: dict[str, Any] | None


class TaskState(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work that somebody asked for; `homeserver` None: for all of them, `cancelling`: it is to stop soon."""

    task_id: int
    kind: str
    arguments: dict[str, Any]
    state: TaskState
    created_by: str
    homeserver: str | None
    created_ts: int
    started_ts: int | None
    finished_ts: int | None
    attempts: int
    cancelling: bool
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None

    @property
    def words(self) -> str:
        """Name the task with its arguments, for the audit log."""
        arguments = "".join(f" {name}={value}" for name, value in self.arguments.items())
        return f"{self.task_id}: {self.kind}{arguments}"
