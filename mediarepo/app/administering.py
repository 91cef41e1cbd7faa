"""What admins use, joined by hand."""

from dataclasses import dataclass

from mediarepo.app.foundation import Foundation
from mediarepo.db.audit import AuditLog
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.records import RecordTable
from mediarepo.db.statistics import StatisticsTable
from mediarepo.db.trash import TrashTable
from mediarepo.homeserver.admins import HomeserverAdmins
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Tenants
from mediarepo.services.admins import Admins
from mediarepo.services.deletion import Deletion
from mediarepo.services.quarantine import Quarantine
from mediarepo.services.records import Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """All that admins use."""

    admins: Admins
    records: Records
    quarantine: Quarantine
    deletion: Deletion
    audit: AuditLog


def join_administration(
    foundation: Foundation, tenants: Tenants, identity: Identity, homeserver_admins: HomeserverAdmins
) -> Administration:
    """Join what admins use."""
    config, database = foundation.settings.admin, foundation.database
    audit, table = AuditLog(database), RecordTable(database)
    return Administration(
        admins=Admins(config=config, identity=identity, homeserver_admins=homeserver_admins),
        records=Records(table=table, statistics=StatisticsTable(database), homeserver_admins=homeserver_admins),
        quarantine=Quarantine(
            table=QuarantineTable(database),
            records=table,
            tenants=tenants,
            homeserver_admins=homeserver_admins,
            audit=audit,
        ),
        deletion=Deletion(config=config, trash=TrashTable(database), homeserver_admins=homeserver_admins, audit=audit),
        audit=audit,
    )
