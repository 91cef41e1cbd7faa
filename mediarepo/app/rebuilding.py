"""What rebuilds a database, joined by hand."""

from mediarepo.app.build_services import build_repairs
from mediarepo.app.foundation import Foundation
from mediarepo.db.object_inventory import MissingObjects
from mediarepo.db.publishing import PublishTable
from mediarepo.db.rebuilding import RebuildTable
from mediarepo.db.sweep import SweepTable, UploadIntents
from mediarepo.model.tasks import Lease
from mediarepo.services.leases import LeaseHolder, lease_of
from mediarepo.services.rebuilding import Rebuilding
from mediarepo.services.stores import BucketMarkers

_LEASE_MS = 60_000
JOURNAL_LEASE = lease_of("journal")
"""Held by whoever writes the journal; nobody does while it is read."""


def join_journal_holding(foundation: Foundation) -> LeaseHolder:
    """Join what keeps others from writing the journal."""
    return foundation.lease_holder(_LEASE_MS)


def join_rebuilding(foundation: Foundation, lease: Lease) -> Rebuilding:
    """Join what rebuilds."""
    database = foundation.database
    sweep_table = SweepTable(database)
    return Rebuilding(
        table=RebuildTable(database, lease),
        publishing=PublishTable(database, foundation.settings.sweep.grace_ms),
        intents=UploadIntents(database),
        sweep_table=sweep_table,
        markers=BucketMarkers(sweep_table=sweep_table, missing_objects=MissingObjects(database)),
        fsck=build_repairs(foundation).fsck,
        stores=foundation.stores,
    )
