"""Request and response models of the admin API for everything but media."""

from typing import Any

from pydantic import ConfigDict, Field, RootModel

from mediarepo.model.marks import AuditEntry
from mediarepo.model.retention import RetentionPlan
from mediarepo.model.tasks import FailedItem, JobRun, Queue, Task
from mediarepo.model.usage import DayObjects, DayUsage, Usage, UsageBy, UsageClass
from mediarepo.web.admin.api.media_models import BIGINT, ApiModel


class UsageQuery(ApiModel):
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


class UsageAnswer(ApiModel):
    """Usage of media."""

    usage: list[Usage]
    """The groups, largest first."""


class UsageDaysQuery(ApiModel):
    """The days of usage to return."""

    days: int = Field(default=90, ge=1, le=1100)
    """Number of days, up to and including today."""


class UsageDaysAnswer(ApiModel):
    """Usage by day, oldest first."""

    media: list[DayUsage]
    """Usage of media."""
    objects: list[DayObjects]
    """Usage of the stores; only for the operator."""


class WhoAmI(ApiModel):
    """The admin whose token was sent."""

    name: str
    """`operator`, or the user id."""
    role: str
    """operator's token, homeserver's admin, or named admin."""
    server_name: str | None
    """The homeserver that they administer; none: all."""
    server_names: list[str]
    """The homeservers whose media they may see."""
    optional_types: list[str]
    """Beginnings of the content types that have thumbnails here and not everywhere, such as `video/`."""


class StatusAnswer(ApiModel):
    """Health, backlog and requests of this process."""

    version: str
    """The version of mediarepo."""
    problems: dict[str, str]
    """What does not respond, with the reason."""
    attention: dict[str, Any]
    """What needs attention while everything responds; the same details as in /health/ready."""
    backlog: dict[str, int]
    """Number of waiting items by queue."""
    requests: dict[str, int]
    """Number of requests that this process has answered, by the first digit of the status, as in `2xx`."""
    monthly_price_per_gib: float | None
    """The configured price of a GiB for a month; none: unknown."""
    currency: str
    """The currency of the price."""


class StoreContents(ApiModel):
    """The number and bytes of a store's objects of one class."""

    object_class: str
    """`content`, `thumbnails`, or `borrowed` (adopted objects, which are only read)."""
    object_count: int
    """Number of objects."""
    size_bytes: int
    """Total bytes stored in the bucket."""


class StoreUsage(ApiModel):
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
    objects: list[StoreContents]
    """Its contents by class."""


class StoresAnswer(ApiModel):
    """All stores."""

    stores: list[StoreUsage]
    """The stores, by name."""


class PolicyState(ApiModel):
    """A retention policy, its plan, and whether it is armed."""

    name: str
    """Its name in the configuration."""
    policy: dict[str, Any]
    """The configured policy."""
    plan: RetentionPlan | None
    """The last plan; absent when the present policy was never planned."""
    planned_ts: int | None
    """Time of the plan, in ms since 1970."""
    armed: bool
    """Whether the scheduler runs it."""
    armed_by: str | None
    """Who armed it."""


class PoliciesAnswer(ApiModel):
    """All retention policies."""

    policies: list[PolicyState]
    """The policies, in the order of the configuration."""


class TaskAnswer(RootModel[Task]):
    """A background task."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class TasksAnswer(ApiModel):
    """Tasks, newest first."""

    tasks: list[Task]
    """One page."""


class NewTask(ApiModel):
    """A task to start."""

    kind: str
    """retention_plan or retention (with `policy`), or fsck (with `store`, or for all)."""
    arguments: dict[str, str] = {}
    """Its arguments."""


_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class PageQuery(ApiModel):
    """A page of a list, newest first."""

    before_id: int = Field(default=BIGINT, ge=0, le=BIGINT)
    """Only entries with smaller numbers than this."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Maximum number of results."""


class AuditQuery(ApiModel):
    """Filters of the audit log, newest first."""

    before_id: str | None = Field(default=None, pattern=_UUID)
    """Only entries older than this one."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Maximum number of results."""
    target: str | None = None
    """Only actions on this target."""
    admin: str | None = None
    """Only actions of this admin."""
    action: str | None = None
    """Only this action, as in `quarantine`."""
    since_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only entries at or after this time, in ms since 1970."""
    until_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only entries before this time, in ms since 1970."""


class AuditAnswer(ApiModel):
    """Audit log entries, newest first."""

    entries: list[AuditEntry]
    """One page."""


class FailedItemsQuery(ApiModel):
    """Filters of failed items."""

    queue: Queue | None = None
    """Only items of this queue."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Maximum number of results."""


class FailedItemsAnswer(ApiModel):
    """Failed items, most recent failure first."""

    failed_items: list[FailedItem]
    """The items."""


class RetryFailedItems(ApiModel):
    """The failed items to retry at the next run of their queue; all by default."""

    queue: Queue | None = None
    """Only items of this queue."""
    item_key: str | None = None
    """Only this item."""


class JobsAnswer(ApiModel):
    """All scheduled jobs that ever ran."""

    jobs: list[JobRun]
    """By name."""


class ImportProgress(ApiModel):
    """The last run of an import."""

    source: str
    """The source's name in the configuration."""
    command: str
    """`run`, `watch`, or another command."""
    started_ts: int
    """Start, in ms since 1970."""
    heartbeat_ts: int
    """When the run last reported, in ms since 1970; much earlier than now for a run that was killed."""
    finished_ts: int | None
    """End, in ms since 1970; none: it is running, or was killed."""
    complete: bool
    """Whether it went through all rows."""
    figures: dict[str, Any]
    """Its progress: rows, bytes and results so far."""
    error: str | None
    """Why it failed."""


class ImportsAnswer(ApiModel):
    """The last run of each import."""

    imports: list[ImportProgress]
    """By name."""
