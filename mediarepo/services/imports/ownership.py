"""Takes ownership of adopted objects, and deletes media that the source deleted."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from mediarepo.db.database import LeaseLostError
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.import_ledger import ImportLedger
from mediarepo.db.import_verification import ImportedContent, ImportedContentTable
from mediarepo.errors import UnavailableError
from mediarepo.importers.source import Source
from mediarepo.model.import_ledger import ImportedBytes, ImportSource, ItemMode, ItemState
from mediarepo.model.import_source import MediaKind, ObjectBytes, SourceMedia
from mediarepo.model.marks import AdminAction
from mediarepo.model.media import Ownership, Sha256State, StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue
from mediarepo.services.imports.decision import DestinationRoute, DestinationStores, TransferItem
from mediarepo.services.imports.transfer import ItemTransfer

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class OwnershipTransfer:
    """Copies by the S3 server where both stores are on one, else through this process; can be resumed."""

    contents: ImportedContentTable
    targets: DestinationStores
    source: Source
    item_transfer: ItemTransfer
    jobs: int
    on_owned: Callable[[int], None]
    failed: int = 0

    async def own_all(self, known: ImportSource) -> None:
        """Take ownership of everything adopted from a source."""
        slots = asyncio.Semaphore(self.jobs)
        async with (
            aclosing(self.contents.by_id(known.source_id, Ownership.BORROWED)) as walk,
            asyncio.TaskGroup() as group,
        ):
            async for content in walk:
                await slots.acquire()
                group.create_task(_released(slots, self._own_or_note(content)))

    async def _own_or_note(self, content: ImportedContent) -> None:
        """Take one object over; one that cannot be does not keep the others."""
        try:
            reason = await self._own(content)
        except LeaseLostError:
            raise
        except Exception as exc:  # one object's failure must not stop the others; counted
            log.exception("ownership_transfer_failed", mxc=str(content.mxc), reason=str(exc))
            self.failed += 1
            return
        if reason is not None:
            log.error("ownership_transfer_failed", mxc=str(content.mxc), reason=reason)
            self.failed += 1
            return
        self.on_owned(content.blob.size_bytes)

    async def _own(self, content: ImportedContent) -> str | None:
        """Take one object over; says why not when its bytes cannot be had."""
        byte_source = self._shelf(content.blob.store)
        address = self.source.bucket_addresses[byte_source]
        blob = content.blob
        found = ObjectBytes(byte_source, address.bucket, blob.object_key, blob.size_bytes, None)
        media = SourceMedia(
            server_name=content.mxc.server_name,
            media_id=content.mxc.media_id,
            kind=MediaKind.REMOTE if content.remote else MediaKind.LOCAL,
            size_bytes=blob.size_bytes,
            sha256=content.sha256,
        )
        store_class = StoreClass.REMOTE if content.remote else StoreClass.LOCAL
        near = self.targets.is_near(address, store_class)
        mode = ItemMode.COPY if near else ItemMode.STREAM
        entry = await self.item_transfer.carry(TransferItem(media, found, DestinationRoute(mode)))
        if entry.content is None:
            return entry.why or "it has no content"
        await self._note(content, entry.content)
        self.item_transfer.forget([entry.content])
        return None

    async def _note(self, content: ImportedContent, made: ImportedBytes) -> None:
        verified = made.sha256_known or content.sha256_state is Sha256State.VERIFIED
        await self.contents.own(content, made.store, made.object_key, made.sha256 if verified else None)

    def _shelf(self, store: str) -> str:
        for byte_source, address in self.source.bucket_addresses.items():
            if self.targets.holding(address) == store:
                return byte_source
        raise LookupError(f"the source has no bucket that is the store {store}")


async def _released(slots: asyncio.Semaphore, work: Awaitable[None]) -> None:
    try:
        await work
    finally:
        slots.release()


_MAX_GONE_SHARE = 0.05
_MIN_GONE = 20


class PruneRefusedError(Exception):
    """So much is gone from the source that something is probably wrong with it."""


async def prune(
    known: ImportSource, ledger: ImportLedger, deletion_table: DeletionTable, act: AdminAction | None
) -> int:
    """Delete media that a complete run did not see any more, leaving tombstones; media under a legal hold stay.

    `act` says whose audit the removals stand in. Raises PruneRefusedError when suspiciously many are gone.
    """
    gone = await ledger.count_gone(known.source_id)
    total = sum(one.count for one in await ledger.sums(known.source_id)) + gone
    if gone > max(_MIN_GONE, total * _MAX_GONE_SHARE):
        raise PruneRefusedError(f"{gone} of {total} media are gone from the source: nothing was removed here")
    removed = 0
    async for item in ledger.items(known.source_id, only_open=True):
        if item.gone and item.state is ItemState.COMMITTED:
            removed += await _delete(deletion_table, Mxc(item.server_name, item.media_id), act)
    return removed


async def _delete(deletion_table: DeletionTable, mxc: Mxc, act: AdminAction | None) -> bool:
    """Delete media; what cannot be deleted is left for the next run, and keeps none of the others."""
    try:
        return await deletion_table.delete(mxc, act)
    except UnavailableError:
        raise
    except Exception:  # one row's failure must not stop the others; logged
        log.exception("item_set_aside", queue=Queue.IMPORTS, item=str(mxc))
        return False
