"""Request and response models of the admin API for everything but media."""

from typing import Any

from pydantic import Field

from mediarepo.model.tasks import Queue, TaskState
from mediarepo.model.usage import UsageBy, UsageClass
from mediarepo.web.admin.api.media_models import BIGINT, Shape


class UsageQuery(Shape):
    """Grouping and filters of usage."""

    by: list[UsageBy] = []
    """Group by these; repeat the parameter, or separate with commas."""
    usage_class: UsageClass | None = Field(default=None, alias="class")
    """Only local media, remote media, or media in the trash (trashed)."""
    server_name: str | None = None
    """Only media of this server."""
    user_id: str | None = None
    """Only uploads of this user."""
    limit: int = Field(default=1000, ge=1, le=100_000)
    """Maximum number of groups, largest first."""


class UsageShape(Shape):
    """The usage of one group; equal content counts for each of its media."""

    group: dict[str, str]
    """The values of the group."""
    media_count: int
    """How many media."""
    size_bytes: int
    """Total bytes."""


class UsageAnswer(Shape):
    """Usage of media."""

    usage: list[UsageShape]
    """The groups, largest first."""


class ObjectsShape(Shape):
    """The number and bytes of a store's objects of one class."""

    object_class: str
    """`content`, `thumbnails`, or `borrowed` (adopted objects, which are only read)."""
    object_count: int
    """Number of objects."""
    size_bytes: int
    """Total bytes stored in the bucket."""


class StoreShape(Shape):
    """A bucket, and its usage."""

    name: str
    """Its name in the configuration."""
    endpoint_url: str
    """The S3 server."""
    bucket: str
    """The bucket."""
    prefix: str
    """The prefix of our object keys."""
    takes: list[str]
    """The classes of new objects stored here: local, remote, thumbnails."""
    objects: list[ObjectsShape]
    """Its contents by class."""


class StoresAnswer(Shape):
    """All stores."""

    stores: list[StoreShape]
    """The stores, by name."""


class PlanShape(Shape):
    """What a retention policy would delete, or has deleted."""

    count: int
    """Number of media, or of thumbnail packs."""
    size_bytes: int
    """Total bytes as users see them."""
    freed_bytes: int
    """Bytes freed in the bucket: content that other media share stays."""
    kept_avatars: int
    """Number of matching media kept because they are avatars."""
    kept_unknown: int
    """Number of matching media kept because the homeserver could not tell whether they are avatars."""
    examples: list[str]
    """Examples."""


class PolicyShape(Shape):
    """A retention policy, its plan, and whether it is armed."""

    name: str
    """Its name in the configuration."""
    policy: dict[str, Any]
    """The configured policy."""
    plan: PlanShape | None
    """The last plan; absent when the present policy was never planned."""
    planned_ts: int | None
    """Time of the plan, in ms since 1970."""
    armed: bool
    """Whether the scheduler runs it."""
    armed_by: str | None
    """Who armed it."""


class PoliciesAnswer(Shape):
    """All retention policies."""

    policies: list[PolicyShape]
    """The policies, in the order of the configuration."""


class TaskShape(Shape):
    """A background task."""

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


class TasksAnswer(Shape):
    """Tasks, newest first."""

    tasks: list[TaskShape]
    """One page."""


class NewTask(Shape):
    """A task to start."""

    kind: str
    """retention_plan or retention (with `policy`), or fsck (with `store`, or for all)."""
    arguments: dict[str, str] = {}
    """Its arguments."""


_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class PageQuery(Shape):
    """A page of a list, newest first."""

    before_id: int = Field(default=BIGINT, ge=0, le=BIGINT)
    """Only entries with smaller numbers than this."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Maximum number of results."""


class AuditQuery(Shape):
    """Filters of the audit log, newest first."""

    before_id: str | None = Field(default=None, pattern=_UUID)
    """Only entries older than this one."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Maximum number of results."""
    target: str | None = None
    """Only actions on this target."""
    admin: str | None = None
    """Only actions of this admin."""


class AuditShape(Shape):
    """An audit log entry."""

    entry_id: str
    """Random id of the entry."""
    created_ts: int
    """The time, in ms since 1970."""
    admin: str
    """Who."""
    homeserver: str | None
    """The admin's homeserver."""
    action: str
    """What."""
    target: str
    """To what."""
    reason: str | None
    """Why."""
    affected: int
    """Number of media affected."""
    client_address: str | None
    """The client's address; absent for commands and old entries."""


class AuditAnswer(Shape):
    """Audit log entries, newest first."""

    entries: list[AuditShape]
    """One page."""


class FailedItemsQuery(Shape):
    """Filters of failed items."""

    queue: Queue | None = None
    """Only items of this queue."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Maximum number of results."""


class FailedItemShape(Shape):
    """An item that background work has set aside."""

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


class FailedItemsAnswer(Shape):
    """Failed items, most recent failure first."""

    failed_items: list[FailedItemShape]
    """The items."""


class RetryFailedItems(Shape):
    """The failed items to retry at the next run of their queue; all by default."""

    queue: Queue | None = None
    """Only items of this queue."""
    item_key: str | None = None
    """Only this item."""


class JobShape(Shape):
    """A scheduled job of the cluster."""

    name: str
    """Which."""
    started_ts: int
    """Time of its last start, in ms since 1970."""
    finished_ts: int | None
    """Time of its end, in ms since 1970; absent while it runs."""
    error: str | None
    """The error, if it failed."""
    result: dict[str, Any] | None
    """The result of the last run that had one."""


class JobsAnswer(Shape):
    """All scheduled jobs that ever ran."""

    jobs: list[JobShape]
    """By name."""
