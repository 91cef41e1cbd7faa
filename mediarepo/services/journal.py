"""Writes changes of the tables into the bucket, so that the bucket alone can restore them."""

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from mediarepo.config.cleanup import JournalConfig
from mediarepo.db.database import SCHEMA_VERSION
from mediarepo.db.journal import JournalTable
from mediarepo.db.sweep import SweepTable
from mediarepo.model.journal import (
    JournalPart,
    PartKind,
    first_after,
    head_line,
    journal_folder,
    new_part_key,
    parse_part,
    tail_line,
)
from mediarepo.model.media import StoreClass
from mediarepo.services.recency import Recency
from mediarepo.services.stores import Stores
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

_MOST_CHANGES = 50_000
_PART_BYTES = 8 * 1024 * 1024
_KEPT_SNAPSHOTS = 2


class GzipLines:
    """Lines in one gzip stream; ready output is taken in pieces."""

    def __init__(self) -> None:
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._ready: list[bytes] = []
        self.size_bytes = 0
        self.rows = 0

    def add(self, line: str) -> None:
        """Add a line."""
        self._keep(self._gzip.compress(line.encode() + b"\n"))

    def end(self) -> None:
        """Add the last line, and end the stream."""
        self.add(tail_line(self.rows))
        self._keep(self._gzip.flush())

    def take(self) -> list[bytes]:
        """Return the output that is ready."""
        taken, self._ready, self.size_bytes = self._ready, [], 0
        return taken

    def _keep(self, data: bytes) -> None:
        if data:
            self._ready.append(data)
            self.size_bytes += len(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """Writes the journal of one database into the store of uploads."""

    config: JournalConfig
    table: JournalTable
    sweep_table: SweepTable
    stores: Stores
    recency: Recency

    async def write(self) -> dict[str, int | str | None]:
        """Write the changes, and a snapshot when one is due; nothing while the database is older than a bucket."""
        if not self.config.enabled:
            await self.table.forget_all()
            return {"rows": 0}
        store = self.stores.store_for_class(StoreClass.LOCAL)
        await self.recency.check()
        installation_id = str(await self.sweep_table.installation_id())
        rows = await self._write_segment(store, installation_id)
        if await self.table.snapshot_due(self.config.snapshot_interval_ms):
            await self._write_snapshot(store, installation_id)
            await self._forget_old(store, installation_id)
        return {"rows": rows}

    async def _write_segment(self, store: Store, installation_id: str) -> int:
        """Put what has changed, and only then drop the notes of it."""
        pending = await self.table.take(_MOST_CHANGES)
        if pending is None:
            return 0
        now_ms, compressed = await self.sweep_table.now_ms(), GzipLines()
        key = new_part_key(store.prefix, installation_id, PartKind.SEGMENT, pending.sequence, now_ms)
        compressed.add(head_line(key, installation_id, SCHEMA_VERSION, now_ms))
        for line in pending.lines:
            compressed.add(line)
            compressed.rows += 1
        compressed.end()
        size_bytes = compressed.size_bytes
        await store.put(key, compressed.take(), size_bytes=size_bytes, metadata={})
        await self.table.forget(pending.change_ids)
        return len(pending.lines)

    async def _write_snapshot(self, store: Store, installation_id: str) -> None:
        """Put everything, in parts if it is much."""
        now_ms, sequence, compressed = await self.sweep_table.now_ms(), await self.table.sequence(), GzipLines()
        key = new_part_key(store.prefix, installation_id, PartKind.SNAPSHOT, sequence, now_ms)
        compressed.add(head_line(key, installation_id, SCHEMA_VERSION, now_ms))
        upload_id, etags, sent_bytes = None, list[str](), 0
        async for lines in self.table.all_lines():
            for line in lines:
                compressed.add(line)
            compressed.rows += len(lines)
            if compressed.size_bytes >= _PART_BYTES:
                upload_id = upload_id or await store.begin_multipart(key, metadata={})
                sent_bytes += compressed.size_bytes
                etags.append(await self._put_part(store, key, upload_id, len(etags) + 1, compressed))
        compressed.end()
        sent_bytes += compressed.size_bytes
        if upload_id is None:
            await store.put(key, compressed.take(), size_bytes=sent_bytes, metadata={})
        else:
            etags.append(await self._put_part(store, key, upload_id, len(etags) + 1, compressed))
            await store.complete_multipart(key, upload_id, etags, size_bytes=sent_bytes)
        await self.table.note_snapshot(sequence)
        log.info("journal_snapshot", store=store.name, rows=compressed.rows, size_bytes=sent_bytes, sequence=sequence)

    @staticmethod
    async def _put_part(store: Store, key: str, upload_id: str, number: int, compressed: GzipLines) -> str:
        size_bytes = compressed.size_bytes
        return await store.put_part(key, upload_id, number, compressed.take(), size_bytes=size_bytes)

    async def _forget_old(self, store: Store, installation_id: str) -> None:
        """Delete snapshots that are too old, and as old segments from before the oldest that is left."""
        horizon_ms = await self.sweep_table.now_ms() - self.config.keep_ms
        snapshots = sorted([part async for part in parts_of(store, installation_id, PartKind.SNAPSHOT)])
        old = [part for part in snapshots[:-_KEPT_SNAPSHOTS] if part.written_ts < horizon_ms]
        kept = snapshots[len(old) :]
        if not kept:
            return
        keys = [part.object_key for part in old]
        async for part in parts_of(store, installation_id, PartKind.SEGMENT):
            if part.sequence > kept[0].sequence or part.written_ts >= horizon_ms:
                break
            keys.append(part.object_key)
        remaining = await store.delete(keys)
        if remaining:
            log.warning("journal_cleanup_failed", store=store.name, count=len(remaining))


async def parts_of(
    store: Store, installation_id: str, kind: PartKind, after: int | None = None
) -> AsyncIterator[JournalPart]:
    """Iterate over the parts of a journal by their numbers, after a number."""
    under = f"{journal_folder(store.prefix, installation_id)}{kind}/"
    start = None if after is None else first_after(store.prefix, installation_id, kind, after)
    async for found in store.list(under, start_after=start):
        part = parse_part(store.prefix, found.key)
        if part is not None:
            yield part
