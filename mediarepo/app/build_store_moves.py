"""Builds moves of objects between stores, and their policies; loaded only where there are any."""

from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.db.retention import RetentionPlans
from mediarepo.db.store_moves import StoreMoveTable
from mediarepo.db.sweep import MissingObjects, SweepTable, UploadIntents
from mediarepo.services.store_moves.policies import StoragePolicies
from mediarepo.services.store_moves.run import StoreMoves
from mediarepo.services.stores import BucketMarkers

_LEASE_MS = 30_000


def build_store_moves(foundation: Foundation) -> StoreMoves:
    """Build the moves of objects between stores."""
    settings, database = foundation.settings, foundation.database
    return StoreMoves(
        table=StoreMoveTable(database),
        stores=foundation.stores,
        configs=settings.stores,
        uploads=settings.uploads,
        intents=UploadIntents(database),
        markers=BucketMarkers(sweep_table=SweepTable(database), missing_objects=MissingObjects(database)),
        recency=foundation.recency,
        lease_holder=foundation.lease_holder(_LEASE_MS),
        homeservers=tuple(homeserver.server_name for homeserver in settings.homeservers),
        now_ms=now_ms,
    )


def build_storage_policies(foundation: Foundation) -> StoragePolicies:
    """Build the policies that move objects to other stores."""
    settings = foundation.settings
    return StoragePolicies(
        config=settings.storage_moves,
        moves=build_store_moves(foundation),
        plans=RetentionPlans(foundation.database),
        homeservers=tuple(homeserver.server_name for homeserver in settings.homeservers),
        now_ms=now_ms,
    )
