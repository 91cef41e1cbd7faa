"""Builds the services behind the admin APIs and the admin commands."""

from dataclasses import dataclass

from mediarepo.app.build_services import build_repairs
from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.db.audit import AuditLog
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.media_admin import MediaAdminTable, MediaSearchTable, StoredContentTable
from mediarepo.db.media_marks import MarkTable
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.retention import RetentionPlans, RetentionTable
from mediarepo.db.tasks import JobRuns, TaskTable
from mediarepo.db.trash import TrashTable
from mediarepo.db.usage import StatisticsTable, UsageDayTable, UsageTable
from mediarepo.homeserver.admin_api import AvatarCache, HomeserverAdmins
from mediarepo.homeserver.client import HomeserverClient
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.services.authorization import Admins, Authorization
from mediarepo.services.batch_isolation import FailedItemReports
from mediarepo.services.deletion import Deletion
from mediarepo.services.media_admin import MediaAdmin, UsageReports
from mediarepo.services.quarantine import HashLearner, Quarantine
from mediarepo.services.retention import Retention
from mediarepo.services.tasks import Tasks, TaskTypes

_TASK_LEASE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """Services behind the admin APIs and the admin commands."""

    admins: Admins
    authorization: Authorization
    records: MediaAdmin
    quarantine: Quarantine
    deletion: Deletion
    retention: Retention
    usage: UsageReports
    tasks: Tasks
    hashing: HashLearner
    audit: AuditLog
    jobs: JobRuns
    failed_items: FailedItemReports


def build_administration(
    foundation: Foundation, tenants: Homeservers, identity: Identity, calls: HomeserverClient, hashing: HashLearner
) -> Administration:
    """Build the admin services."""
    config, database, homeserver_admins = foundation.settings.admin, foundation.database, HomeserverAdmins(calls)
    authorization, marks = Authorization(tenants=tenants), MarkTable(database)
    audit, table, usage = AuditLog(database), MediaAdminTable(database), _join_usage(foundation)
    retention = _join_retention(foundation, tenants, calls, usage)
    return Administration(
        admins=Admins(config=config, identity=identity, homeserver_admins=homeserver_admins),
        authorization=authorization,
        records=MediaAdmin(
            table=table,
            statistics=StatisticsTable(database),
            searches=MediaSearchTable(database),
            contents=StoredContentTable(database),
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
            reads_through=any(source.read_through for source in foundation.settings.imports.values()),
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
        recency=foundation.recency,
    )


def _join_tasks(foundation: Foundation, retention: Retention) -> Tasks:
    database = foundation.database
    return Tasks(
        table=TaskTable(database),
        lease_holder=foundation.lease_holder(_TASK_LEASE_MS),
        works=TaskTypes(retention=retention, repairs=build_repairs(foundation), stores=foundation.stores).by_kind(),
        isolation=foundation.isolation,
    )


def _join_usage(foundation: Foundation) -> UsageReports:
    return UsageReports(
        table=UsageTable(foundation.database), days=UsageDayTable(foundation.database), isolation=foundation.isolation
    )


def _join_retention(
    foundation: Foundation, tenants: Homeservers, calls: HomeserverClient, usage: UsageReports
) -> Retention:
    database = foundation.database

    def avatars_of(server_name: str) -> AvatarCache | None:
        homeserver = tenants.by_server_name(server_name)
        if homeserver is None or homeserver.client_api_url is None:
            return None
        return AvatarCache(homeserver, calls, HomeserverAdmins(calls))

    return Retention(
        config=foundation.settings.retention,
        table=RetentionTable(database),
        plans=RetentionPlans(database),
        trash=TrashTable(database),
        deletion_table=DeletionTable(database),
        avatars_of=avatars_of,
        bytes_of=usage.of_class,
        isolation=foundation.isolation,
        now_ms=now_ms,
        homeservers=lambda: tenants.names,
        recency=foundation.recency,
    )
