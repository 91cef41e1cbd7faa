"""Leases, tasks, runs of scheduled jobs, and items that background work could not process."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_MAX_KEY_CHARS = 600


class Queue(StrEnum):
    """Background queues of many items."""

    ACCESS_TIMES = "access_times"
    HASHING = "hashing"
    IMPORTS = "imports"
    MULTIPART_UPLOADS = "multipart_uploads"
    OBJECT_DELETIONS = "object_deletions"
    PENDING_MEDIA = "pending_media"
    PREVIEWS = "previews"
    REMOTE_MEDIA = "remote_media"
    RESTORED_OBJECTS = "restored_objects"
    RETENTION = "retention"
    TASKS = "tasks"
    TRASH = "trash"
    USAGE = "usage"


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item that was set aside: why, its number of tries, and its next retry (ms since 1970)."""

    queue: str
    """The queue."""
    item_key: str
    """The item: an mxc address, an object key or a number."""
    error: str
    """The error of the last attempt."""
    attempts: int
    """Number of attempts."""
    first_ts: int
    """Time of the first failure, in ms since 1970; of an object deletion, when it was queued."""
    last_ts: int
    """Time of the last failure, in ms since 1970; of an object deletion, when it was queued."""
    retry_ts: int
    """Time of the next attempt, in ms since 1970."""


def storable_text(text: str, max_chars: int | None = None) -> str:
    """Return text that Postgres stores: NUL and lone surrogates are escaped."""
    kept = text.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")
    return kept if max_chars is None else kept[:max_chars]


def storable_json(value: object) -> str:
    """Return JSON that Postgres stores, its texts as `storable_text`."""
    return json.dumps(_storable(value))


def _storable(value: object) -> object:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable_text(str(name)): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value]
    return value


def item_key(text: str) -> str:
    """Return a key that Postgres stores and indexes; long ones end in a hash."""
    kept = storable_text(text)
    if len(kept.encode()) <= _MAX_KEY_CHARS:
        return kept
    digest = hashlib.sha256(kept.encode()).hexdigest()
    return f"{kept.encode()[:_MAX_KEY_CHARS].decode(errors='ignore')}…{digest}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease held by one process of the cluster; each holder's `fence` is larger than the one before."""

    name: str
    fence: int


@dataclass(frozen=True, slots=True)
class JobRun:
    """The last run of a scheduled job in any process; `finished_ts` None: it runs, or its process died."""

    name: str
    """Its name."""
    started_ts: int
    """Time of its last start, in ms since 1970."""
    finished_ts: int | None
    """Time of its end, in ms since 1970; absent while it runs."""
    error: str | None
    """The error, if it failed."""
    result: dict[str, Any] | None
    """The result of the last run that had one."""


class TaskState(StrEnum):
    """The state of a task."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task started by an admin; `homeserver` None: for all of them, `cancelling`: it is to stop soon."""

    task_id: int
    """Its number."""
    kind: str
    """The kind of task: retention_plan, retention or fsck."""
    arguments: dict[str, Any]
    """To what."""
    state: TaskState
    """Its state."""
    created_by: str
    """Who started it."""
    homeserver: str | None
    """The homeserver it is for; absent: all."""
    created_ts: int
    """The time, in ms since 1970."""
    started_ts: int | None
    """Time of its first start, in ms since 1970."""
    finished_ts: int | None
    """Time of its end, in ms since 1970."""
    attempts: int
    """Number of starts; more than one after a process died."""
    cancelling: bool
    """Whether it is being cancelled."""
    progress: dict[str, Any]
    """Its progress."""
    result: dict[str, Any] | None
    """Its result."""
    error: str | None
    """The error, if it failed."""

    @property
    def words(self) -> str:
        """The task's kind and arguments, for the audit log."""
        arguments = "".join(f" {name}={value}" for name, value in self.arguments.items())
        return f"{self.task_id}: {self.kind}{arguments}"
