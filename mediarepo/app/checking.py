"""What compares bucket and database, joined by hand."""

from mediarepo.app.foundation import Foundation
from mediarepo.db.healing import Healing
from mediarepo.db.inventory import Inventory
from mediarepo.db.media import MediaTable
from mediarepo.db.sweeping import Sweeping
from mediarepo.services.fsck import Fsck
from mediarepo.services.markers import Markers
from mediarepo.services.repairs import Repairs


def join_repairs(foundation: Foundation) -> Repairs:
    """Join what checks a store and mends it."""
    config, database = foundation.settings.sweep, foundation.database
    sweeping = Sweeping(database)
    return Repairs(
        config=config,
        fsck=Fsck(inventory=Inventory(database), sweeping=sweeping, grace_ms=config.grace_ms),
        sweeping=sweeping,
        media=MediaTable(database),
        markers=Markers(sweeping=sweeping, healing=Healing(database)),
    )
