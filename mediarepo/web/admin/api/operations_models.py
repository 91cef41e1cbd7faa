"""Request and response models of the admin API for everything but media."""

from typing import Any

from pydantic import Field

from mediarepo.model.tasks import Queue, TaskState
from mediarepo.model.usage import UsageBy, UsageClass
from mediarepo.web.admin.api.media_models import BIGINT, Shape


class UsageQuery(Shape):
    """Grouping and filters of usage."""

    by: list[UsageBy] = []
    """Split by these; repeat the parameter, or separate with commas."""
    usage_class: UsageClass | None = Field(default=None, alias="class")
    """Only uploads (local), other servers' media (remote), or what lies in the trash (trashed)."""
    server_name: str | None = None
    """Only media of this server."""
    user_id: str | None = None
    """Only uploads of this user."""
    limit: int = Field(default=1000, ge=1, le=100_000)
    """How many groups at most, the largest first."""


class UsageShape(Shape):
    """The usage of one group; equal content counts for each of its media."""

    group: dict[str, str]
    """The values of what was split by."""
    media_count: int
    """How many media."""
    size_bytes: int
    """Their bytes together."""


class UsageAnswer(Shape):
    """Usage of media."""

    usage: list[UsageShape]
    """The groups, the largest first."""


class ObjectsShape(Shape):
    """The number and bytes of a store's objects of one class."""

    object_class: str
    """`content`, `thumbnails`, or `borrowed` (objects of others that are only read)."""
    object_count: int
    """How many objects."""
    size_bytes: int
    """Their bytes together: what is paid for."""


class StoreShape(Shape):
    """A bucket, and its usage."""

    name: str
    """Its name in the configuration."""
    endpoint_url: str
    """The S3 server."""
    bucket: str
    """The bucket."""
    prefix: str
    """What our keys begin with."""
    takes: list[str]
    """What is newly stored here: local, remote, thumbnails."""
    objects: list[ObjectsShape]
    """What it holds."""


class StoresAnswer(Shape):
    """All stores."""

    stores: list[StoreShape]
    """In the order of their names."""


class PlanShape(Shape):
    """What a retention policy would delete, or has deleted."""

    count: int
    """How many media, or thumbnail packs."""
    size_bytes: int
    """Their bytes as users see them."""
    freed_bytes: int
    """What the bucket gets rid of: content that other media share stays."""
    kept_avatars: int
    """How many fit but are avatars."""
    kept_unknown: int
    """How many fit but may be avatars, as the homeserver could not tell."""
    examples: list[str]
    """Some of them."""


class PolicyShape(Shape):
    """A retention policy, its plan, and whether it is armed."""

    name: str
    """Its name in the configuration."""
    policy: dict[str, Any]
    """As it is configured."""
    plan: PlanShape | None
    """What it would remove, as last counted; none: never counted as it reads now."""
    planned_ts: int | None
    """When that was counted, in ms since 1970."""
    armed: bool
    """Whether it is carried out regularly."""
    armed_by: str | None
    """Who armed it."""


class PoliciesAnswer(Shape):
    """All retention policies."""

    policies: list[PolicyShape]
    """As they stand in the configuration."""


class TaskShape(Shape):
    """A background task."""

    task_id: int
    """Its number."""
    kind: str
    """What is done: retention_plan, retention, fsck."""
    arguments: dict[str, Any]
    """To what."""
    state: TaskState
    """Where it is."""
    created_by: str
    """Who asked for it."""
    homeserver: str | None
    """For which homeserver; none: for all."""
    created_ts: int
    """When, in ms since 1970."""
    started_ts: int | None
    """When it first began, in ms since 1970."""
    finished_ts: int | None
    """When it ended, in ms since 1970."""
    attempts: int
    """How often it was begun; more than once when a process died."""
    cancelling: bool
    """Whether somebody wants it to stop."""
    progress: dict[str, Any]
    """How far it is."""
    result: dict[str, Any] | None
    """What came of it."""
    error: str | None
    """Why it failed."""


class TasksAnswer(Shape):
    """Tasks, newest first."""

    tasks: list[TaskShape]
    """A page of them."""


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
    """Only entries with smaller numbers."""
    limit: int = Field(default=100, ge=1, le=1000)
    """How many at most."""


class AuditQuery(Shape):
    """Filters of the audit log, newest first."""

    before_id: str | None = Field(default=None, pattern=_UUID)
    """Only entries older than this one."""
    limit: int = Field(default=100, ge=1, le=1000)
    """How many at most."""
    target: str | None = None
    """Only what was done to this."""
    admin: str | None = None
    """Only what this admin did."""


class AuditShape(Shape):
    """An audit log entry."""

    entry_id: str
    """Its name, which tells nothing."""
    created_ts: int
    """When, in ms since 1970."""
    admin: str
    """Who."""
    homeserver: str | None
    """At which homeserver."""
    action: str
    """What."""
    target: str
    """To what."""
    reason: str | None
    """Why."""
    affected: int
    """How many media that concerned."""
    client_address: str | None
    """Where the request came from; none: a command, or before this was kept."""


class AuditAnswer(Shape):
    """Audit log entries, newest first."""

    entries: list[AuditShape]
    """A page of them."""


class FailedItemsQuery(Shape):
    """Filters of failed items."""

    queue: Queue | None = None
    """Only those of this queue."""
    limit: int = Field(default=100, ge=1, le=1000)
    """How many at most."""


class FailedItemShape(Shape):
    """An item that background work has set aside."""

    queue: str
    """What work it was."""
    item_key: str
    """Which item: an address, an object, a number."""
    error: str
    """Why it failed the last time."""
    attempts: int
    """How often it was tried."""
    first_ts: int
    """When it first failed, in ms since 1970; of an object deletion, when it was queued."""
    last_ts: int
    """When it last failed, in ms since 1970; of an object deletion, when it was queued."""
    retry_ts: int
    """When it is tried again, in ms since 1970."""


class FailedItemsAnswer(Shape):
    """Failed items, most recent failure first."""

    failed_items: list[FailedItemShape]
    """The items."""


class RetryFailedItems(Shape):
    """The failed items to retry at the next run of their queue; all by default."""

    queue: Queue | None = None
    """Only those of this queue."""
    item_key: str | None = None
    """Only this one."""


class JobShape(Shape):
    """A scheduled job of the cluster."""

    name: str
    """Which."""
    started_ts: int
    """When it last began, in ms since 1970."""
    finished_ts: int | None
    """When it ended; none: it is under way."""
    error: str | None
    """Why it failed, if it did."""
    result: dict[str, Any] | None
    """What came of it, this time or the last time that something did."""


class JobsAnswer(Shape):
    """All scheduled jobs that ever ran."""

    jobs: list[JobShape]
    """By name."""
