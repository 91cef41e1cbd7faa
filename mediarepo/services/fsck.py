"""Compares a store with the database in the order of keys, and repairs differences.

Neither side stands still meanwhile: what looks wrong is looked at once more before it is called so, and whatever is
younger than the grace is nobody's business yet.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from mediarepo.config.cleanup import SweepConfig
from mediarepo.db.media import MediaTable
from mediarepo.db.sweep import ObjectInventory, SweepTable
from mediarepo.errors import UnavailableError
from mediarepo.model.drift import Drift, DriftKind, KnownObject
from mediarepo.model.ids import is_intended, object_key_ts
from mediarepo.model.journal import journal_folder
from mediarepo.model.marks import AdminAction
from mediarepo.model.media import Blob
from mediarepo.services.quarantine import HashingSink
from mediarepo.services.recency import Recency
from mediarepo.services.stores import NOT_OURS, BucketMarkers, marker_key
from mediarepo.storage.errors import ObjectMissingError, StorageError
from mediarepo.storage.store import ListedMultipart, ListedObject, Store

_BATCH = 1000
_READ_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckLevel:
    """How thoroughly to check: whether contents are hashed, after which key, and how fast at most."""

    hashes: bool = False
    after_key: str = ""
    objects_per_s: float = 0.0


@dataclass(slots=True)
class FsckProgress:
    """Progress of a check."""

    objects: int = 0
    rows: int = 0
    last_key: str = ""
    borrowed: int = 0
    unchecked: list[str] = field(default_factory=list)
    """What was not looked at though it was asked for, and why, in the operator's words."""
    found: dict[DriftKind, int] = field(default_factory=lambda: dict.fromkeys(DriftKind, 0))

    def note(self, listed: ListedObject | None, known: KnownObject | None) -> None:
        """Count an object, a row, or a pair of both."""
        self.objects += listed is not None
        self.rows += known is not None
        self.last_key = listed.key if listed is not None else known.object_key if known is not None else ""


@dataclass(slots=True)
class _Suspects:
    """Objects that no row was met for, and objects whose content is to be read."""

    strangers: list[ListedObject] = field(default_factory=list)
    unread: list[KnownObject] = field(default_factory=list)

    def add(self, listed: ListedObject | None, known: KnownObject | None, *, hashes: bool) -> None:
        if listed is None:
            return
        if known is None:
            self.strangers.append(listed)
        elif hashes and listed.size_bytes == known.size_bytes:
            self.unread.append(known)

    @property
    def are_many(self) -> bool:
        return len(self.strangers) >= _BATCH or len(self.unread) >= _READ_AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Fsck:
    """Finds differences between bucket and database; changes nothing but the record of the database's age."""

    inventory: ObjectInventory
    sweep_table: SweepTable
    recency: Recency
    grace_ms: int

    async def check(
        self, store: Store, how: FsckLevel, progress: FsckProgress, on_progress: Callable[[], None]
    ) -> AsyncIterator[Drift]:
        """Check a store; yields each difference as it is found."""
        await self.recency.look(store)
        horizon_ms = await self.sweep_table.now_ms() - self.grace_ms
        if how.after_key:
            progress.unchecked.append(f"what comes up to {how.after_key}")
        parts = [
            self._own_objects(store, how, progress, on_progress, horizon_ms),
            self._borrowed(store, how, progress, on_progress),
            self._known_losses(store),
        ]
        if not store.read_only:
            parts.insert(2, self._leftovers(store, horizon_ms, progress))
        for part in parts:
            async for drift in part:
                yield drift

    async def _known_losses(self, store: Store) -> AsyncIterator[Drift]:
        async for known in self.inventory.lost(store.name):
            kind = DriftKind.KNOWN_MISSING
            yield Drift(kind, store.name, known.object_key, known.blob_id, None, known.size_bytes)

    async def _own_objects(
        self, store: Store, how: FsckLevel, progress: FsckProgress, on_progress: Callable[[], None], horizon_ms: int
    ) -> AsyncIterator[Drift]:
        suspects, began = _Suspects(), asyncio.get_running_loop().time()
        async for listed, known in _merged(self._listed(store, how.after_key), self._known(store, how.after_key)):
            progress.note(listed, known)
            on_progress()
            await _pace(progress.objects, began, how.objects_per_s)
            if known is not None:
                async for drift in self._compared(store, listed, known):
                    yield drift
            suspects.add(listed, known, hashes=how.hashes)
            if suspects.are_many:
                async for drift in self._looked_into(store, suspects, horizon_ms):
                    yield drift
        async for drift in self._looked_into(store, suspects, horizon_ms):
            yield drift

    async def _borrowed(
        self, store: Store, how: FsckLevel, progress: FsckProgress, on_progress: Callable[[], None]
    ) -> AsyncIterator[Drift]:
        """Look at each adopted object, which lies wherever it was found."""
        async for some in self.inventory.borrowed(store.name, _READ_AT_ONCE):
            progress.borrowed += len(some)
            on_progress()
            sizes = await asyncio.gather(*(store.size_of(known.object_key) for known in some))
            good: list[KnownObject] = []
            for known, size_bytes in zip(some, sizes, strict=True):
                if size_bytes == known.size_bytes:
                    good.append(known)
                elif await self._is_current(known):
                    kind = DriftKind.ROW_WITHOUT_OBJECT if size_bytes is None else DriftKind.SIZE
                    yield Drift(kind, store.name, known.object_key, known.blob_id, size_bytes, known.size_bytes)
            for drift in await _damaged(store, good if how.hashes else []):
                yield drift

    async def _is_current(self, known: KnownObject) -> bool:
        """Say whether a row still names an object, which may have been deleted or moved to another store."""
        row = await self.inventory.get(known.blob_id)
        return row is not None and row.object_key == known.object_key

    async def _looked_into(self, store: Store, suspects: "_Suspects", horizon_ms: int) -> AsyncIterator[Drift]:
        """Look into what one glance could not tell, and let go of it."""
        strangers, unread = suspects.strangers, suspects.unread
        suspects.strangers, suspects.unread = [], []
        async for drift in self._unknown(store, strangers, horizon_ms):
            yield drift
        for drift in await _damaged(store, unread):
            yield drift

    async def _listed(self, store: Store, after_key: str) -> AsyncIterator[ListedObject]:
        async for found in store.list(f"{store.prefix}/", start_after=after_key or None):
            if found.key != marker_key(store) and not found.key.startswith(journal_folder(store.prefix)):
                yield found

    def _known(self, store: Store, after_key: str) -> AsyncIterator[KnownObject]:
        return self.inventory.known(store.name, after_key or f"{store.prefix}/")

    async def _compared(self, store: Store, listed: ListedObject | None, known: KnownObject) -> AsyncIterator[Drift]:
        """Look twice at what does not agree: it may have come or gone meanwhile."""
        if listed is None or listed.size_bytes != known.size_bytes:
            size_bytes = await _size_of(store, known.object_key)
            if not await self._is_current(known):
                return  # rows go before bytes, so whoever deletes or moves had changed the row when the object went
            if size_bytes is None:
                kind = DriftKind.ROW_WITHOUT_OBJECT
                yield Drift(kind, store.name, known.object_key, known.blob_id, None, known.size_bytes)
            elif size_bytes != known.size_bytes:
                yield Drift(DriftKind.SIZE, store.name, known.object_key, known.blob_id, size_bytes, known.size_bytes)

    async def _unknown(self, store: Store, strangers: list[ListedObject], horizon_ms: int) -> AsyncIterator[Drift]:
        """Ask once more, as of one instant, which objects no row, intent or queued deletion mentions.

        What had an intent is looked at however young it is: the intent comes before the object.
        """
        old = {
            one.key: one
            for one in strangers
            if (object_key_ts(one.key) or horizon_ms) < horizon_ms or is_intended(one.key)
        }
        for key in await self._still_unknown(store, list(old)):
            kind = DriftKind.LOST_ROW if is_intended(key) else DriftKind.OBJECT_WITHOUT_ROW
            if kind is DriftKind.LOST_ROW:
                await self.recency.note_lost(store, key)
            yield Drift(kind, store.name, key, None, old[key].size_bytes)

    async def _still_unknown(self, store: Store, keys: list[str]) -> list[str]:
        """Pick what is unknown and still there: what was deleted since it was listed is known no more, either."""
        unknown = await self.sweep_table.unknown(store.name, keys) if keys else []
        there: list[str] = []
        for start in range(0, len(unknown), _READ_AT_ONCE):
            some = unknown[start : start + _READ_AT_ONCE]
            sizes = await asyncio.gather(*(store.size_of(key) for key in some))
            there += [key for key, size_bytes in zip(some, sizes, strict=True) if size_bytes is not None]
        return await self.sweep_table.unknown(store.name, there) if there else []

    async def _leftovers(self, store: Store, horizon_ms: int, progress: FsckProgress) -> AsyncIterator[Drift]:
        try:
            async for drift in self._leftover_multiparts(store, horizon_ms):
                yield drift
        except StorageError as exc:
            progress.unchecked.append(f"open multipart uploads: {exc}")

    async def _leftover_multiparts(self, store: Store, horizon_ms: int) -> AsyncIterator[Drift]:
        async for found in store.list_multiparts(f"{store.prefix}/"):
            key_ts = object_key_ts(found.key)
            if key_ts is None or key_ts >= horizon_ms:
                continue
            if await self.sweep_table.without_intent(store.name, [found.key]) and await _is_open(store, found):
                yield Drift(DriftKind.LEFTOVER_MULTIPART, store.name, found.key, upload_id=found.upload_id)


async def _merged(
    listed: AsyncIterator[ListedObject], known: AsyncIterator[KnownObject]
) -> AsyncIterator[tuple[ListedObject | None, KnownObject | None]]:
    """Walk through two ordered lists at once; gives pairs, and singles where the other side has none."""
    left, right = await anext(listed, None), await anext(known, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key.encode() < right.object_key.encode()):
            yield left, None
            left = await _next_in_order(listed, left)
        elif left is None or left.key.encode() > right.object_key.encode():
            yield None, right
            right = await anext(known, None)
        else:
            yield left, right
            left, right = await _next_in_order(listed, left), await anext(known, None)


async def _next_in_order(listed: AsyncIterator[ListedObject], before: ListedObject | None) -> ListedObject | None:
    found = await anext(listed, None)
    if found is not None and before is not None and found.key.encode() <= before.key.encode():
        raise UnavailableError("the S3 server does not list keys in their order, so nothing can be compared")
    return found


async def _size_of(store: Store, object_key: str) -> int | None:
    async for found in store.list(object_key):
        if found.key == object_key:
            return found.size_bytes
    return None


async def _is_open(store: Store, upload: ListedMultipart) -> bool:
    """Look once more: it may have been completed or aborted since it was listed."""
    async for found in store.list_multiparts(upload.key):
        if found.upload_id == upload.upload_id:
            return True
    return False


async def _damaged(store: Store, unread: list[KnownObject]) -> list[Drift]:
    """Read some contents at once, and tell which are not what they should be."""
    agree = await asyncio.gather(*(_hash_agrees(store, known) for known in unread))
    return [
        Drift(DriftKind.HASH, store.name, known.object_key, known.blob_id, known.size_bytes, known.size_bytes)
        for known, agrees in zip(unread, agree, strict=True)
        if not agrees
    ]


async def _hash_agrees(store: Store, known: KnownObject) -> bool:
    if known.sha256 is None:
        return True
    hashing = HashingSink()
    try:
        async with store.open(known.object_key, known_bytes=known.size_bytes) as stored:
            await stored.send_to(hashing)
    except ObjectMissingError:
        return True  # it went meanwhile; the next check tells
    return hashing.sha256.digest() == known.sha256


async def _pace(objects: int, began: float, objects_per_s: float) -> None:
    if objects_per_s > 0:
        ahead_s = objects / objects_per_s - (asyncio.get_running_loop().time() - began)
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)


_MAX_SHARE = 0.01


class RepairRefusedError(Exception):
    """A repair could destroy more than it fixes; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """Repairs what a check finds; deletions go through the outbox, damaged media are marked missing."""

    config: SweepConfig
    fsck: Fsck
    sweep_table: SweepTable
    media: MediaTable
    markers: BucketMarkers

    async def check_safe(self, store: Store, found: FsckProgress, *, force: bool) -> None:
        """Check that the store is ours and the database knows enough, as one restored from a backup may not.

        Raises RepairRefusedError saying which check failed.
        """
        if not await self.markers.is_ours(store):
            raise RepairRefusedError(NOT_OURS)
        for problem in (await self.fsck.recency.problems()).values():
            if not force:
                raise RepairRefusedError(problem)
        unknown = found.found[DriftKind.OBJECT_WITHOUT_ROW]
        if not force and unknown > max(self.config.max_unknown, found.objects * _MAX_SHARE):
            raise RepairRefusedError(
                f"{unknown} of {found.objects} objects are unknown: was the database restored from a backup? "
                "If they are not needed, use --force"
            )
        lost = found.found[DriftKind.ROW_WITHOUT_OBJECT]
        if not force and lost > max(self.config.max_unknown, found.rows * _MAX_SHARE):
            raise RepairRefusedError(
                f"{lost} of {found.rows} objects are gone: is this the right bucket? If they are lost, use --force"
            )

    async def repair(
        self, store: Store, how: FsckLevel, on_repaired: Callable[[Drift], None], *, force: bool = False
    ) -> int:
        """Check again, and repair each difference as it is found; returns how many were left unrepaired.

        Left are objects unknown only since recently, and those that a newer database knew, unless `force` is set.
        """
        left, now_ms = 0, await self.sweep_table.now_ms()
        async for drift in self.fsck.check(store, how, FsckProgress(), lambda: None):
            if drift.kind is DriftKind.KNOWN_MISSING:  # the sweep gives back what is there again
                continue
            if not force and not await self._may_mend(store, drift, now_ms):
                left += 1
                continue
            await self._mend(store, drift)
            on_repaired(drift)
        if force:
            await self.fsck.recency.give_up(store)
        return left

    async def _may_mend(self, store: Store, drift: Drift, now_ms: int) -> bool:
        if drift.kind is DriftKind.LOST_ROW:
            return False
        if drift.kind is not DriftKind.OBJECT_WITHOUT_ROW:
            return True
        table, keys = self.fsck.recency.table, [drift.object_key]
        await table.meet(store.name, keys, now_ms)
        old = await table.old_enough(store.name, keys, now_ms, self.config.unknown_object_age_ms)
        return bool(old) and await table.knows_any(store.name)

    async def accept_losses(self, store: Store, act: AdminAction) -> int:
        """Stop reporting what is known to be missing by now; returns the number of objects."""
        return await self.fsck.inventory.accept_losses(store.name, act)

    async def _mend(self, store: Store, drift: Drift) -> None:
        """Remove what is nobody's or damaged; media whose content is lost say so, and are fetched again if possible."""
        if drift.kind in {DriftKind.OBJECT_WITHOUT_ROW, DriftKind.LOST_ROW}:
            await self.sweep_table.condemn(store.name, [drift.object_key])
        elif drift.kind is DriftKind.LEFTOVER_MULTIPART and drift.upload_id is not None:
            await store.abort_multipart(drift.object_key, drift.upload_id)
        elif drift.blob_id is not None:
            size_bytes = drift.size_in_database or 0
            blob = Blob(drift.blob_id, drift.store, drift.object_key, size_bytes)
            damaged = drift.kind in {DriftKind.SIZE, DriftKind.HASH}
            await self.media.mark_missing(blob, remove_object=damaged and store.holds(drift.object_key))
