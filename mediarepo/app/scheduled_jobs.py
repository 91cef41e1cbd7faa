"""The scheduled jobs: in every process, or once for all processes over one database."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mediarepo.app.build_admin import Administration
from mediarepo.app.build_services import build_journal
from mediarepo.app.foundation import Foundation
from mediarepo.db.import_ledger import ImportRuns
from mediarepo.db.limits import RateTable
from mediarepo.db.remote_media import RemoteTable, ServerKeyTable
from mediarepo.db.tasks import BacklogTable, JobRuns
from mediarepo.db.usage import UsageTable
from mediarepo.jobs import ScheduledJob
from mediarepo.model.import_ledger import ItemState
from mediarepo.model.tasks import Queue
from mediarepo.model.usage import UsageBy, UsageClass, UsageFilter
from mediarepo.services.access_times import AccessTimes
from mediarepo.services.batch_isolation import run_steps
from mediarepo.services.leases import ClusterJobs
from mediarepo.services.sweeps import Sweeps
from mediarepo.services.uploads import PendingUploads

if TYPE_CHECKING:
    from mediarepo.app.build_scanning import Scanning

_EXPIRY_INTERVAL_MS = 600_000
_FOLD_INTERVAL_MS = 30_000
_USAGE_DAY_INTERVAL_MS = 3_600_000
_TASK_INTERVAL_MS = 2_000
_BACKLOG_INTERVAL_MS = 30_000
_HASHING_INTERVAL_MS = 60_000
_LOOK_INTERVAL_MS = 60_000
_SCAN_INTERVAL_MS = 30_000
_LEASE_MS = 60_000
_FAILURES_KEPT_MS = 7 * 24 * 3_600_000
_CLASSES = len(UsageClass)
_KEYS_KEPT_MS = 30 * 24 * 3_600_000
MAX_SERVER_ROWS = 100_000
"""Rows about other servers that stay at most, of each kind: anybody can make up names."""

Figures = dict[str, Any]


def regular_jobs(
    foundation: Foundation,
    administration: Administration,
    sweeps: Sweeps,
    pending: PendingUploads,
    access_times: AccessTimes,
    tidy_previews: Callable[[], Awaitable[None]],
    scanning: "Scanning | None" = None,
) -> list[ScheduledJob]:
    """Return the scheduled jobs: those of every process, and those that one process runs for all."""
    database = foundation.database
    cluster_jobs = ClusterJobs(lease_holder=foundation.lease_holder(_LEASE_MS), runs=JobRuns(database))
    backlog = partial(_show_backlog, foundation, cluster_jobs, scanning)

    async def tidy() -> None:
        await foundation.recency.check()
        await tidy_previews()

    access = foundation.settings.access_times.flush_interval_ms
    return [
        *(_once(cluster_jobs, *job) for job in _fleet_jobs(foundation, administration, sweeps, pending)),
        *(_once(cluster_jobs, *job) for job in _scan_jobs(scanning)),
        _once(cluster_jobs, "previews", _EXPIRY_INTERVAL_MS, tidy),
        _once(cluster_jobs, "recency", _LOOK_INTERVAL_MS, foundation.recency.look_at_all),
        ScheduledJob(name="tasks", interval_ms=_TASK_INTERVAL_MS, run=administration.tasks.run_waiting),
        ScheduledJob(name="backlog", interval_ms=_BACKLOG_INTERVAL_MS, run=backlog),
        ScheduledJob(name="access_times", interval_ms=access, run=access_times.flush, last_time=True),
    ]


def _once(
    cluster_jobs: ClusterJobs, name: str, interval_ms: int, work: Callable[[], Awaitable[Figures | None]]
) -> ScheduledJob:
    return ScheduledJob(name=name, interval_ms=interval_ms, run=partial(cluster_jobs.once, name, interval_ms, work))


def _fleet_jobs(
    foundation: Foundation, administration: Administration, sweeps: Sweeps, pending: PendingUploads
) -> list[tuple[str, int, Callable[[], Awaitable[Figures | None]]]]:
    settings, rates = foundation.settings, RateTable(foundation.database)

    async def drain() -> Figures:
        return {"deleted": await sweeps.outbox.drain()}

    async def sweep() -> Figures:
        return {report.store: report.figures() for report in await sweeps.sweep()}

    async def expire() -> None:
        await run_steps(
            pending.forget_expired,
            administration.tasks.forget_old,
            rates.forget_empty,
            foundation.isolation.forget_gone,
            partial(RemoteTable(foundation.database).forget_old, _FAILURES_KEPT_MS, MAX_SERVER_ROWS),
            partial(ServerKeyTable(foundation.database).forget_old, _KEYS_KEPT_MS, MAX_SERVER_ROWS),
        )

    async def fold() -> Figures:
        return {"folded": await administration.usage.fold()}

    jobs: list[tuple[str, int, Callable[[], Awaitable[Figures | None]]]] = [
        ("outbox", settings.sweep.outbox_interval_ms, drain),
        ("trash", settings.admin.trash_interval_ms, administration.deletion.empty_trash),
        ("pending", _EXPIRY_INTERVAL_MS, expire),
        ("usage", _FOLD_INTERVAL_MS, fold),
        ("usage_day", _USAGE_DAY_INTERVAL_MS, administration.usage.days.note),
        ("hashing", _HASHING_INTERVAL_MS, administration.hashing.learn_suspects),
        ("journal", settings.journal.interval_ms, build_journal(foundation).write),
        ("retention", settings.retention.interval_ms, administration.retention.run_armed),
        *_store_moves(foundation),
    ]
    if settings.sweep.enabled:
        jobs.append(("sweep", settings.sweep.interval_ms, sweep))
    return jobs


def _store_moves(foundation: Foundation) -> list[tuple[str, int, Callable[[], Awaitable[Figures | None]]]]:
    config = foundation.settings.storage_moves
    if not config.policies:
        return []
    from mediarepo.app.build_store_moves import build_storage_policies  # noqa: PLC0415 - few have such policies

    return [("storage_moves", config.interval_ms, build_storage_policies(foundation).run_armed)]


def _scan_jobs(scanning: "Scanning | None") -> list[tuple[str, int, Callable[[], Awaitable[Figures | None]]]]:
    """Return a job for each scanner, which scans what is stored."""
    if scanning is None:
        return []
    return [
        (f"scans_{scanner.name}", _SCAN_INTERVAL_MS, partial(scanning.rounds.go_on, scanner))
        for scanner in scanning.scanners
    ]


async def _show_backlog(foundation: Foundation, cluster_jobs: ClusterJobs, scanning: "Scanning | None") -> None:
    """Turn what waits, and what the fleet's last sweep found, into figures."""
    metrics = foundation.metrics
    if scanning is not None:
        await scanning.show(foundation)
    for queue, count in (await BacklogTable(foundation.database).count()).items():
        metrics.backlog.labels(queue).set(count)
    set_aside = await foundation.isolation.failed.count()
    for queue in Queue:
        metrics.items_set_aside.labels(queue).set(set_aside.get(queue, 0))
    await _show_stored(foundation)
    await _show_imports(foundation)
    behind = await foundation.recency.problems()
    for store in foundation.stores.by_name:
        metrics.database_behind.labels(store).set(store in behind)
    for job in await cluster_jobs.runs.read():
        if job.finished_ts is not None:
            metrics.job_finished.labels(job.name).set(job.finished_ts / 1000)
        metrics.job_failed.labels(job.name).set(job.error is not None)
        if job.name == "sweep":
            for store, found in (job.result or {}).items():
                for kind in ("unknown", "multiparts"):
                    metrics.drift.labels(store, kind).set(found.get(kind, 0))


async def _show_stored(foundation: Foundation) -> None:
    """Turn what is stored into figures; what is gone goes from them."""
    metrics, usage = foundation.metrics, UsageTable(foundation.database)
    objects = await usage.of_objects()
    names = [homeserver.server_name for homeserver in foundation.settings.homeservers]
    media = {name: await usage.of_media([UsageBy.CLASS], UsageFilter(server_name=name), _CLASSES) for name in names}
    media["remote"] = await usage.of_media([UsageBy.CLASS], UsageFilter(usage_class=UsageClass.REMOTE), _CLASSES)
    for gauge in (metrics.stored_bytes, metrics.stored_objects, metrics.media_bytes, metrics.media_count):
        gauge.clear()
    for one in objects:
        metrics.stored_bytes.labels(one.store, one.object_class).set(one.size_bytes)
        metrics.stored_objects.labels(one.store, one.object_class).set(one.object_count)
    for name, groups in media.items():
        for group in groups:
            labels = group.group[UsageBy.CLASS], name
            metrics.media_bytes.labels(*labels).set(group.size_bytes)
            metrics.media_count.labels(*labels).set(group.media_count)


async def _show_imports(foundation: Foundation) -> None:
    """Turn the progress of imports, the last ones', into figures."""
    metrics = foundation.metrics
    for source, run in (await ImportRuns(foundation.database).latest_of_each()).items():
        metrics.import_running.labels(source).set(run.finished_ts is None)
        for state in ("rows", *ItemState):
            number = run.figures.get(state, 0)
            metrics.import_items.labels(source, state).set(number if isinstance(number, int) else 0)
