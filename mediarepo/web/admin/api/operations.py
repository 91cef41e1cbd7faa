"""Admin endpoints for usage, stores, retention, tasks and the audit log."""

from importlib.metadata import version
from typing import Any

from mediarepo.config.cleanup import RetentionPolicy
from mediarepo.errors import ForbiddenError, InvalidParamError, NotFoundError
from mediarepo.model.media import StoreClass
from mediarepo.model.retention import StoredPlan
from mediarepo.model.usage import UsageFilter
from mediarepo.web.admin.api.endpoints import Call
from mediarepo.web.admin.api.media_models import Done
from mediarepo.web.admin.api.operations_models import (
    AuditAnswer,
    AuditQuery,
    FailedItemsAnswer,
    FailedItemsQuery,
    ImportProgress,
    ImportsAnswer,
    JobsAnswer,
    NewTask,
    PageQuery,
    PoliciesAnswer,
    PolicyState,
    RetryFailedItems,
    StatusAnswer,
    StoreContents,
    StoresAnswer,
    StoreUsage,
    TaskAnswer,
    TasksAnswer,
    UsageAnswer,
    UsageDaysAnswer,
    UsageDaysQuery,
    UsageQuery,
    WhoAmI,
)
from mediarepo.web.keys import (
    AUDIT,
    AUTHORIZATION,
    FAILED_ITEMS,
    JOBS,
    METRICS,
    READINESS,
    RETENTION,
    SETTINGS,
    TASKS,
    TENANTS,
    USAGE,
)


async def usage(call: Call) -> UsageAnswer:
    """Return how much space media use, grouped as asked.

    Raises ForbiddenError when a homeserver's admin asks for another one.
    """
    query = call.query(UsageQuery)
    server_name = query.server_name
    own = call.app[AUTHORIZATION].viewer(call.admin)
    if own is not None:
        if server_name not in {None, own}:
            raise ForbiddenError(f"you administer {own} only")
        server_name = own
    found = await call.app[USAGE].of_media(
        query.by, UsageFilter(query.usage_class, server_name, query.user_id), query.limit
    )
    return UsageAnswer(usage=found)


async def usage_days(call: Call) -> UsageDaysAnswer:
    """Return the usage of each day; a homeserver's admins see that of their own media."""
    days, own = call.query(UsageDaysQuery).days, call.app[AUTHORIZATION].viewer(call.admin)
    table = call.app[USAGE].days
    return UsageDaysAnswer(
        media=await table.of_media(days, own),
        objects=await table.of_objects(days) if own is None else [],
    )


async def whoami(call: Call) -> WhoAmI:
    """Return who sent the token, and what they administer."""
    own = call.app[AUTHORIZATION].viewer(call.admin)
    return WhoAmI(
        name=call.admin.name,
        role=call.admin.role,
        server_name=own,
        server_names=list(call.app[TENANTS].names) if own is None else [own],
        optional_types=[
            content_type
            for optional in call.app[SETTINGS].thumbnails.optional_formats
            for content_type in optional.content_types
        ],
    )


async def status(call: Call) -> StatusAnswer:
    """Return what waits, what does not respond, and how many requests this process has answered."""
    readiness, console = call.app[READINESS], call.app[SETTINGS].console
    return StatusAnswer(
        version=version("matrix-mediarepo"),
        problems=await readiness.problems(),
        attention=await readiness.details(),
        backlog=await call.app[JOBS].backlog.count(),
        requests=call.app[METRICS].requests_by_class(),
        monthly_price_per_gib=console.monthly_price_per_gib,
        currency=console.currency,
    )


async def stores(call: Call) -> StoresAnswer:
    """Return each bucket's usage."""
    settings, objects = call.app[SETTINGS], await call.app[USAGE].of_objects()
    found = [
        StoreUsage(
            name=name,
            endpoint_url=config.endpoint_url,
            bucket=config.bucket,
            prefix=config.prefix,
            takes=[kind.value for kind in StoreClass if settings.store_for.store_of(kind) == name],
            objects=[
                StoreContents(object_class=one.object_class, object_count=one.object_count, size_bytes=one.size_bytes)
                for one in objects
                if one.store == name
            ],
        )
        for name, config in sorted(settings.stores.items())
    ]
    return StoresAnswer(stores=found)


async def policies(call: Call) -> PoliciesAnswer:
    """List the retention policies, with the last plan of each."""
    retention = call.app[RETENTION]
    stored = await retention.stored()
    return PoliciesAnswer(policies=[_policy(one, stored.get(one.name)) for one in retention.config.policies])


async def plan_retention(call: Call) -> TaskAnswer:
    """Start to count what a policy would delete."""
    return await _begin(call, "retention_plan", {"policy": call.app[RETENTION].policy(call.path["policy"]).name})


async def run_retention(call: Call) -> TaskAnswer:
    """Start one run of a policy; it must have been planned as it reads."""
    return await _begin(call, "retention", {"policy": call.app[RETENTION].policy(call.path["policy"]).name})


async def arm_retention(call: Call) -> Done:
    """Let the scheduler run a policy regularly; it must have been planned as it reads."""
    retention = call.app[RETENTION]
    await retention.arm(retention.policy(call.path["policy"]), call.admin.name, **_from(call))
    return Done(affected=0)


async def disarm_retention(call: Call) -> Done:
    """Stop the scheduler from running a policy."""
    retention = call.app[RETENTION]
    await retention.disarm(retention.policy(call.path["policy"]), call.admin.name, **_from(call))
    return Done(affected=0)


async def list_tasks(call: Call) -> TasksAnswer:
    """List tasks, newest first."""
    query = call.query(PageQuery)
    found = await call.app[TASKS].table.read(homeserver=None, before_id=query.before_id, limit=query.limit)
    return TasksAnswer(tasks=found)


async def get_task(call: Call) -> TaskAnswer:
    """Return a task with its progress."""
    return TaskAnswer(await call.app[TASKS].get(_task_id(call)))


async def add_task(call: Call) -> TaskAnswer:
    """Start a task."""
    new = call.body(NewTask)
    return await _begin(call, new.kind, dict(new.arguments))


async def cancel_task(call: Call) -> TaskAnswer:
    """Cancel a task at its next step."""
    return TaskAnswer(await call.app[TASKS].cancel(_task_id(call), call.admin.name, **_from(call)))


async def audit(call: Call) -> AuditAnswer:
    """List audit log entries, newest first; a homeserver's admins see those of their homeserver."""
    query = call.query(AuditQuery)
    found = await call.app[AUDIT].read(
        call.admin,
        query.before_id,
        query.limit,
        target=query.target,
        by=query.admin,
        action=query.action,
        since_ts=query.since_ts,
        until_ts=query.until_ts,
    )
    return AuditAnswer(entries=found)


async def failed_items(call: Call) -> FailedItemsAnswer:
    """List the items that background work has set aside, and why."""
    query = call.query(FailedItemsQuery)
    found = await call.app[FAILED_ITEMS].read(queue=query.queue, limit=query.limit)
    return FailedItemsAnswer(failed_items=found)


async def retry_failed_items(call: Call) -> Done:
    """Retry failed items at the next run of their queue, instead of at the end of their back-off."""
    wanted = call.body(RetryFailedItems)
    count = await call.app[FAILED_ITEMS].retry(call.admin.name, queue=wanted.queue, key=wanted.item_key, **_from(call))
    return Done(affected=count)


async def imports(call: Call) -> ImportsAnswer:
    """List the last run of each import, with its progress."""
    runs = await call.app[JOBS].imports.latest_of_each()
    return ImportsAnswer(
        imports=[
            ImportProgress(
                source=name,
                command=run.command,
                started_ts=run.started_ts,
                heartbeat_ts=run.heartbeat_ts,
                finished_ts=run.finished_ts,
                complete=run.complete,
                figures=run.figures,
                error=run.error,
            )
            for name, run in sorted(runs.items())
        ]
    )


async def jobs(call: Call) -> JobsAnswer:
    """List the scheduled jobs and when they last ran."""
    return JobsAnswer(jobs=await call.app[JOBS].read())


def _from(call: Call) -> dict[str, str | None]:
    """Say where a request comes from, for the audit log."""
    return {"client_address": call.admin.client_address}


async def _begin(call: Call, kind: str, arguments: dict[str, Any]) -> TaskAnswer:
    return TaskAnswer(
        await call.app[TASKS].add(kind, arguments, created_by=call.admin.name, homeserver=None, **_from(call))
    )


def _task_id(call: Call) -> int:
    text = call.path["task_id"]
    if not text.isascii() or not text.isdecimal() or len(text) > 18:  # noqa: PLR2004 - what fits a bigint
        raise InvalidParamError("a task's number has at most 18 digits")
    if int(text) == 0:
        raise NotFoundError("there is no such task")
    return int(text)


def _policy(policy: RetentionPolicy, stored: StoredPlan | None) -> PolicyState:
    current = stored if stored is not None and stored.fingerprint == policy.fingerprint() else None
    return PolicyState(
        name=policy.name,
        policy=policy.model_dump(mode="json"),
        plan=None if current is None else current.plan,
        planned_ts=None if current is None else current.planned_ts,
        armed=current is not None and current.armed_ts is not None,
        armed_by=None if current is None else current.armed_by,
    )
