"""Carries out queued deletions: S3 first, and only then is the row forgotten."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mediarepo.db.deletion import Outbox, QueuedDeletion
from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.model.failed_items import Queue
from mediarepo.services.stores import Stores
from mediarepo.storage.errors import StorageError, StorageUnavailableError
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

_BATCH = 1000
_OUTAGE = 3
"""So many aborts in a row that the store cannot serve are no longer one upload's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxWorker:
    """Empties the outbox."""

    outbox: Outbox
    stores: Stores
    on_backlog: Callable[[int], None]

    async def drain(self) -> int:
        """Carry out all deletions that are due; returns how many objects are gone."""
        gone = 0
        while claimed := await self.outbox.claim(_BATCH):
            gone += await self._carry_out(claimed)
        self.on_backlog(await self.outbox.count())
        return gone

    async def _carry_out(self, claimed: list[QueuedDeletion]) -> int:
        by_store: dict[str, list[QueuedDeletion]] = defaultdict(list)
        for deletion in claimed:
            by_store[deletion.store].append(deletion)
        gone = 0
        for name, deletions in by_store.items():
            gone += await self._delete_what_can_be(name, deletions)
        return gone

    async def _delete_what_can_be(self, name: str, deletions: list[QueuedDeletion]) -> int:
        """Delete objects of one store; when that fails though the store answers, each on its own in the end."""
        waiting, gone = [deletions], 0
        while waiting:
            batch = waiting.pop()
            try:
                gone += await self._delete(self.stores.named(name), batch)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it must not hold up the others
                if isinstance(exc, UnavailableError) and await self._is_outage(name):
                    log.warning("deletions_postponed", store=name, count=len(batch), reason=str(exc))
                    if name not in self.stores.by_name:
                        for deletion in batch:
                            await self.outbox.note_failure(deletion, str(exc))
                    return gone
                if len(batch) > 1:
                    waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                    continue
                item, reason = batch[0].object_key, f"{type(exc).__name__}: {exc}"
                log.warning("item_set_aside", queue=Queue.OBJECT_DELETIONS, item=item, reason=reason)
                await self.outbox.note_failure(batch[0], reason)
        return gone

    async def _is_outage(self, name: str) -> bool:
        try:
            await self.outbox.check()
            await self.stores.named(name).check()
        except MatrixError:
            return True
        return False

    async def _delete(self, store: Store, deletions: list[QueuedDeletion]) -> int:
        """Delete what lies in the store; what fails is noted, and holds up nothing else."""
        inside = [deletion for deletion in deletions if store.holds(deletion.object_key)]
        for deletion in deletions:
            if not store.holds(deletion.object_key):
                await self.outbox.note_failure(deletion, f"outside of the store's prefix {store.prefix}/")
        gone = await self._remove(store, [deletion for deletion in inside if deletion.upload_id is None])
        return gone + await self._remove(store, await self._aborted(store, inside))

    async def _aborted(self, store: Store, deletions: list[QueuedDeletion]) -> list[QueuedDeletion]:
        """Abort multipart uploads one by one; gives those whose object may go, and leaves the rest in an outage."""
        aborted, outages = list[QueuedDeletion](), 0
        for deletion in deletions:
            if deletion.upload_id is None:
                continue
            try:
                await store.abort_multipart(deletion.object_key, deletion.upload_id)
            except StorageError as exc:
                await self.outbox.note_failure(deletion, str(exc))
                outages = outages + 1 if isinstance(exc, StorageUnavailableError) else 0
                if outages == _OUTAGE:
                    break
                continue
            outages = 0
            aborted.append(deletion)
        return aborted

    async def _remove(self, store: Store, deletions: list[QueuedDeletion]) -> int:
        failed = await store.delete([deletion.object_key for deletion in deletions])
        for deletion in deletions:
            if deletion.object_key in failed:
                await self.outbox.note_failure(deletion, failed[deletion.object_key])
        done = [deletion for deletion in deletions if deletion.object_key not in failed]
        await self.outbox.forget(done)
        return len(done)
