"""Garbage collection: deletes orphaned objects and aborts abandoned multipart uploads."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import structlog

from mediarepo.config.cleanup import SweepConfig
from mediarepo.db.sweep import SweepTable, UploadIntents
from mediarepo.errors import InvalidParamError, UnavailableError
from mediarepo.model.drift import KnownObject
from mediarepo.model.ids import hour_of, object_key_ts
from mediarepo.model.media import StoreClass
from mediarepo.model.tasks import Queue
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.deletion import OutboxWorker
from mediarepo.services.recency import Recency
from mediarepo.services.stores import NOT_OURS, BucketMarkers, Stores, has_object
from mediarepo.storage.errors import StorageError
from mediarepo.storage.store import ListedMultipart, Store
from mediarepo.telemetry.logs import error_text

log = structlog.get_logger(__name__)

_PAGE = 1000
_MAX_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Results of a sweep of one store; `stopped`: why nothing was done; `unchecked`: what could not be listed."""

    store: str
    listed: int = 0
    unknown: int = 0
    multiparts: int = 0
    stopped: str | None = None
    found_again: int = 0
    unchecked: str | None = None
    condemned: int = 0

    def figures(self) -> dict[str, int | str | None]:
        """Return the figures that are stored."""
        return {name: value for name, value in asdict(self).items() if name != "store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeps:
    """Compares bucket and rows; never touches objects outside our prefix, nor young ones."""

    config: SweepConfig
    stores: Stores
    sweep_table: SweepTable
    upload_intents: UploadIntents
    markers: BucketMarkers
    recency: Recency
    outbox: OutboxWorker
    isolation: BatchIsolation
    on_stopped: Callable[[str], None]

    async def sweep(self) -> list[SweepReport]:
        """Sweep every store, then execute the deletions."""
        await self.recency.look_at_all()
        await self._condemn_stale()
        reports = [await self._sweep_or_say_why_not(store) for store in self.stores.by_name.values()]
        for report in reports:
            if report.stopped:
                self.on_stopped(report.store)
            level = log.error if report.stopped else log.warning if report.unchecked else log.info
            level("swept", **{"store": report.store} | report.figures())
        await self.outbox.drain()
        return reports

    async def _condemn_stale(self) -> None:
        async with self.isolation.drain_queue(Queue.MULTIPART_UPLOADS):
            while places := await self.upload_intents.stale(self.config.grace_ms, _PAGE):
                await self.isolation.run(Queue.MULTIPART_UPLOADS, places, self._condemn, key=": ".join)

    async def _condemn(self, places: Sequence[tuple[str, str]]) -> int:
        """Abort what was begun and whose id nobody could write down, and queue all for deletion."""
        for name, object_key in await self.upload_intents.without_id(places):
            if name in self.stores.by_name:
                await _abort_all(self.stores.by_name[name], object_key)
        return await self.upload_intents.condemn_stale(places, grace_ms=self.config.grace_ms)

    async def _sweep_or_say_why_not(self, store: Store) -> SweepReport:
        """Sweep a store; one that cannot be swept holds up no other."""
        try:
            return await self._sweep_store(store)
        except StorageError as exc:
            return SweepReport(store.name, stopped=str(exc))
        except UnavailableError:
            raise
        except Exception as exc:  # one store's failure must not stop the others; reported
            log.exception("sweep_failed", store=store.name)
            return SweepReport(store.name, stopped=error_text(exc))

    async def _sweep_store(self, store: Store) -> SweepReport:
        if not await self.markers.claim(store):
            return SweepReport(store.name, stopped=NOT_OURS)
        found_again = await self._heal(store)
        if store.read_only:
            return SweepReport(store.name, found_again=found_again)
        now_ms = await self.sweep_table.now_ms()
        horizon_ms = now_ms - self.config.grace_ms
        listed, unknown = 0, list[str]()
        async for page in _pages(self._old_keys(store, horizon_ms)):
            listed += len(page)
            found = await self.sweep_table.unknown(store.name, page)
            lost_key = await self.recency.find_lost(store, found)
            if lost_key is not None:
                await self.recency.note_lost(store, lost_key)
            unknown += found
        reason = await self._reason_to_stop(store, listed, len(unknown))
        if reason is not None:
            return SweepReport(store.name, listed, len(unknown), stopped=reason, found_again=found_again)
        condemned = await self._condemn_unknown(store, unknown, now_ms)
        report = SweepReport(store.name, listed, len(unknown), found_again=found_again, condemned=condemned)
        try:
            return replace(report, multiparts=await self._sweep_multiparts(store, horizon_ms))
        except StorageError as exc:
            return replace(report, unchecked=f"open multipart uploads: {exc}")

    async def _reason_to_stop(self, store: Store, listed: int, unknown: int) -> str | None:
        """Say why nothing may be deleted; None when it may."""
        for problem in (await self.recency.problems()).values():
            return problem
        if unknown and not await self.recency.table.knows_any(store.name):
            return f"the database knows no object of this store, which has {unknown}: is it new, or another one's?"
        if unknown > max(self.config.max_unknown, listed * _MAX_SHARE):
            return f"{unknown} of {listed} objects are unknown: was the database restored from a backup?"
        return None

    async def _condemn_unknown(self, store: Store, unknown: list[str], now_ms: int) -> int:
        """Queue what was first seen unknown long ago, and remember the rest; gives the number that is queued."""
        condemned, table = 0, self.recency.table
        for start in range(0, len(unknown), _PAGE):
            page = unknown[start : start + _PAGE]
            await table.meet(store.name, page, now_ms)
            old = await table.old_enough(store.name, page, now_ms, self.config.unknown_object_age_ms)
            await self.sweep_table.condemn(store.name, old)
            condemned += len(old)
        await table.forget_unmet(store.name, now_ms)
        return condemned

    async def take_over(self, store: Store) -> SweepReport:
        """Claim a store because the operator says so, and restore missing media found in it.

        Raises InvalidParamError when the store's prefix was changed: its objects would stay under the old one.
        """
        other_prefix = await self.markers.other_prefix(store)
        if other_prefix is not None:
            raise InvalidParamError(
                f"store {store.name}: the database knows its objects under the prefix {other_prefix}, not "
                f"{store.prefix}: a prefix cannot be changed; put the old one back"
            )
        await self.markers.mark(store)
        return SweepReport(store.name, found_again=await self._heal(store))

    async def _heal(self, store: Store) -> int:
        """Take back that objects were missing which are there again; gives their number."""
        missing_objects, after_id, count = self.markers.missing_objects, 0, 0
        while missing := await missing_objects.missing(store.name, after_id, _PAGE):
            after_id = missing[-1].blob_id
            for one in missing:
                outcome = await self.isolation.run(
                    Queue.RESTORED_OBJECTS,
                    [one],
                    partial(self._restore, store),
                    key=lambda known: f"{store.name}: {known.object_key}",
                    store=lambda _: store.name,
                )
                count += outcome.done
        return count

    async def _restore(self, store: Store, missing: Sequence[KnownObject]) -> int:
        count = 0
        for one in missing:
            if await has_object(store, one):
                log.info("missing_object_restored", store=store.name, object_key=one.object_key)
                await self.markers.missing_objects.found_again(one.blob_id)
                count += 1
        return count

    async def _old_keys(self, store: Store, horizon_ms: int) -> AsyncIterator[str]:
        """List keys made before the horizon, opening only the folders of hours that can hold such."""
        for store_class in StoreClass:
            async for hour_prefix in store.list_prefixes(f"{store.prefix}/{store_class}/"):
                if hour_prefix.rstrip("/").rpartition("/")[2] > hour_of(max(horizon_ms, 0)):
                    continue
                async for found in store.list(hour_prefix):
                    key_ts = object_key_ts(found.key)
                    if key_ts is not None and key_ts < horizon_ms:
                        yield found.key

    async def _sweep_multiparts(self, store: Store, horizon_ms: int) -> int:
        """Abort old multipart uploads that no intent mentions; aborting again later would do no harm."""
        count = 0
        async for found in store.list_multiparts(f"{store.prefix}/"):
            key_ts = object_key_ts(found.key)
            if key_ts is None or key_ts >= horizon_ms:
                continue
            if await self.sweep_table.without_intent(store.name, [found.key]):
                outcome = await self.isolation.run(
                    Queue.MULTIPART_UPLOADS,
                    [found],
                    partial(_abort, store),
                    key=lambda one: f"{store.name}: {one.key} {one.upload_id}",
                    store=lambda _: store.name,
                )
                count += outcome.done
        return count


async def _abort(store: Store, uploads: Sequence[ListedMultipart]) -> int:
    for one in uploads:
        await store.abort_multipart(one.key, one.upload_id)
    return len(uploads)


async def _abort_all(store: Store, object_key: str) -> None:
    """Abort the multipart uploads of one key; what cannot be listed is left to a rule of the bucket's."""
    try:
        for upload_id in await store.multiparts_of(object_key):
            await store.abort_multipart(object_key, upload_id)
    except StorageError as exc:
        log.warning("multipart_uploads_unlisted", store=store.name, object_key=object_key, reason=str(exc))


async def _pages(keys: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    page: list[str] = []
    async for key in keys:
        page.append(key)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page
