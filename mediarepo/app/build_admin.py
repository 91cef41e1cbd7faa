"""What admins use, joined by hand."""

from dataclasses import dataclass

from mediarepo.app.build_services import join_repairs
from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.db.audit import AuditLog
from mediarepo.db.deletion import Deleting
from mediarepo.db.leases import Leases
from mediarepo.db.marks import MarkTable
from mediarepo.db.media_admin import RecordTable, SearchTable
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.retention import RetentionPlans, RetentionTable
from mediarepo.db.tasks import JobRuns, TaskTable
from mediarepo.db.trash import TrashTable
from mediarepo.db.usage import StatisticsTable, UsageTable
from mediarepo.homeserver.admin_api import Avatars, HomeserverAdmins
from mediarepo.homeserver.client import HomeserverCalls
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Tenants
from mediarepo.services.authorization import Admins, Authorization
from mediarepo.services.batch_isolation import FailedItemReports
from mediarepo.services.deletion import Deletion
from mediarepo.services.hash_learning import Hashing
from mediarepo.services.leases import Holding
from mediarepo.services.media_admin import Records, UsageReports
from mediarepo.services.quarantine import Quarantine
from mediarepo.services.retention import Retention
from mediarepo.services.tasks import Tasks, Works

_TASK_LEASE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """All that admins use."""

    admins: Admins
    authorization: Authorization
    records: Records
    quarantine: Quarantine
    deletion: Deletion
    retention: Retention
    usage: UsageReports
    tasks: Tasks
    hashing: Hashing
    audit: AuditLog
    jobs: JobRuns
    failed_items: FailedItemReports


def join_administration(
    foundation: Foundation, tenants: Tenants, identity: Identity, calls: HomeserverCalls, hashing: Hashing
) -> Administration:
    """Join what admins use."""
    config, database, homeserver_admins = foundation.settings.admin, foundation.database, HomeserverAdmins(calls)
    authorization, marks = Authorization(tenants=tenants), MarkTable(database)
    audit, table, usage = AuditLog(database), RecordTable(database), _join_usage(foundation)
    retention = _join_retention(foundation, tenants, calls, usage)
    return Administration(
        admins=Admins(config=config, identity=identity, homeserver_admins=homeserver_admins),
        authorization=authorization,
        records=Records(
            table=table,
            statistics=StatisticsTable(database),
            searches=SearchTable(database),
            homeserver_admins=homeserver_admins,
        ),
        quarantine=Quarantine(
            config=foundation.settings.quarantine,
            table=QuarantineTable(database),
            marks=marks,
            records=table,
            authorization=authorization,
            homeserver_admins=homeserver_admins,
            hashing=hashing,
        ),
        deletion=_join_deletion(foundation, homeserver_admins, audit, marks, authorization),
        retention=retention,
        usage=usage,
        tasks=_join_tasks(foundation, retention),
        hashing=hashing,
        audit=audit,
        jobs=JobRuns(database),
        failed_items=FailedItemReports(failed=foundation.isolation.failed),
    )


def _join_deletion(
    foundation: Foundation,
    homeserver_admins: HomeserverAdmins,
    audit: AuditLog,
    marks: MarkTable,
    authorization: Authorization,
) -> Deletion:
    return Deletion(
        config=foundation.settings.admin,
        trash=TrashTable(foundation.database),
        marks=marks,
        authorization=authorization,
        homeserver_admins=homeserver_admins,
        audit=audit,
        isolation=foundation.isolation,
    )


def _join_tasks(foundation: Foundation, retention: Retention) -> Tasks:
    database = foundation.database
    return Tasks(
        table=TaskTable(database),
        holding=Holding(leases=Leases(database), duration_ms=_TASK_LEASE_MS),
        works=Works(retention=retention, repairs=join_repairs(foundation), stores=foundation.stores).by_kind(),
        isolation=foundation.isolation,
    )


def _join_usage(foundation: Foundation) -> UsageReports:
    return UsageReports(table=UsageTable(foundation.database), isolation=foundation.isolation)


def _join_retention(foundation: Foundation, tenants: Tenants, calls: HomeserverCalls, usage: UsageReports) -> Retention:
    database = foundation.database

    def avatars_of(server_name: str) -> Avatars | None:
        homeserver = tenants.by_server_name(server_name)
        if homeserver is None or homeserver.client_api_url is None:
            return None
        return Avatars(homeserver, calls, HomeserverAdmins(calls))

    return Retention(
        config=foundation.settings.retention,
        table=RetentionTable(database),
        plans=RetentionPlans(database),
        trash=TrashTable(database),
        deleting=Deleting(database),
        avatars_of=avatars_of,
        bytes_of=usage.of_class,
        isolation=foundation.isolation,
        now_ms=now_ms,
    )
