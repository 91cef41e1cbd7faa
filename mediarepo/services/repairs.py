"""Makes bucket and database agree again, where that loses nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from mediarepo.config.cleanup import SweepConfig
from mediarepo.db.media import MediaTable
from mediarepo.db.sweep import Sweeping
from mediarepo.model.drift import Drift, DriftKind
from mediarepo.model.media import Blob
from mediarepo.services.fsck import Fsck, Progress, Thoroughness
from mediarepo.services.markers import NOT_OURS, Markers
from mediarepo.storage.store import Store

_MAX_SHARE = 0.01


class RepairRefusedError(Exception):
    """Repairing could destroy more than it mends; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """Repairs what a check finds; deletions go through the outbox, damaged media are marked missing."""

    config: SweepConfig
    fsck: Fsck
    sweeping: Sweeping
    media: MediaTable
    markers: Markers

    async def check_safe(self, store: Store, found: Progress, *, force: bool) -> None:
        """Refuse to repair a store that is not ours, or with a database that knows too little, as a backup does."""
        if not await self.markers.is_ours(store):
            raise RepairRefusedError(NOT_OURS)
        unknown = found.found[DriftKind.OBJECT_WITHOUT_ROW]
        if not force and unknown > max(self.config.max_unknown, found.objects * _MAX_SHARE):
            raise RepairRefusedError(
                f"{unknown} of {found.objects} objects are unknown: was the database restored from a backup? "
                "If they really are nobody's, say --force"
            )
        lost = found.found[DriftKind.ROW_WITHOUT_OBJECT]
        if not force and lost > max(self.config.max_unknown, found.rows * _MAX_SHARE):
            raise RepairRefusedError(
                f"{lost} of {found.rows} objects are gone: is this the right bucket? If they are, say --force"
            )

    async def repair(self, store: Store, how: Thoroughness, on_repaired: Callable[[Drift], None]) -> None:
        """Check once more, and repair each disagreement as it is found."""
        async for drift in self.fsck.check(store, how, Progress(), lambda: None):
            await self._mend(store, drift)
            on_repaired(drift)

    async def _mend(self, store: Store, drift: Drift) -> None:
        """Remove what is nobody's or damaged; media whose content is lost say so, and are fetched again if possible."""
        if drift.kind is DriftKind.OBJECT_WITHOUT_ROW:
            await self.sweeping.condemn(store.name, [drift.object_key])
        elif drift.kind is DriftKind.LEFTOVER_MULTIPART and drift.upload_id is not None:
            await store.abort_multipart(drift.object_key, drift.upload_id)
        elif drift.blob_id is not None:
            size_bytes = drift.size_in_database or 0
            blob = Blob(drift.blob_id, drift.store, drift.object_key, size_bytes)
            damaged = drift.kind in {DriftKind.SIZE, DriftKind.HASH}
            await self.media.mark_missing(blob, remove_object=damaged)
