"""Moves objects from one store to another while both are in use; nothing is unreadable at any moment.

For each object: a copy under a key of our own, which has an intent; the copy verified; then one transaction in which
the row names the copy, and the old object is queued for deletion after a grace. What is left to do is what the rows
still name in the old store: after a crash, the same move goes on. Intents of a process that died are the sweep's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog

from mediarepo.config.media import UploadsConfig
from mediarepo.config.storage import StoreConfig
from mediarepo.db.database import DatabaseUnavailableError, LeaseLostError, fenced
from mediarepo.db.store_moves import StoreMoveTable
from mediarepo.db.sweep import UploadIntents
from mediarepo.errors import InvalidParamError, LimitExceededError, MatrixError
from mediarepo.model.concurrency import task_group
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.media import Ownership, StoreClass
from mediarepo.model.store_moves import (
    MovableObject,
    MoveOutcome,
    MoveSelection,
    MoveTally,
    ObjectPlace,
    StoreMove,
)
from mediarepo.services.imports.throttle import KeyPool, Throttle
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.recency import Recency
from mediarepo.services.store_moves.copying import ObjectCopier
from mediarepo.services.stores import NOT_OURS, BucketMarkers, Stores
from mediarepo.storage.errors import StorageError, StorageRefusesWritesError, StorageUnavailableError
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

LEASE = "move objects"
_BEAT_S = 5
_PAUSES_S = (1, 2, 5, 10, 30, 60, 60, 60, 60, 60)
"""How long an object waits when S3 or Postgres cannot serve; after the last pause the move stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions:
    """How a move goes: transfers in parallel, bytes per second, and how long old objects stay."""

    jobs: int = 4
    bytes_per_s: float | None = None
    grace_ms: int = 86_400_000
    server_side: bool = True


@dataclass(slots=True, kw_only=True)
class _Run:
    """One move under way."""

    move_id: int
    target: Store
    copier: ObjectCopier
    options: MoveOptions
    tally: MoveTally
    stopping: Callable[[], bool]
    former: Mapping[int, ObjectPlace] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMoves:
    """Plans moves, makes them one at a time, and undoes them."""

    table: StoreMoveTable
    stores: Stores
    configs: Mapping[str, StoreConfig]
    uploads: UploadsConfig
    intents: UploadIntents
    markers: BucketMarkers
    recency: Recency
    lease_holder: LeaseHolder
    homeservers: tuple[str, ...]
    now_ms: Callable[[], int]
    pauses_s: tuple[float, ...] = _PAUSES_S

    async def check(self, from_store: str, to_store: str) -> None:
        """Make sure that objects may be moved from one store to another.

        Raises InvalidParamError when they may not, BehindError while the database is older than a bucket.
        """
        for name in (from_store, to_store):
            if name not in self.stores.by_name:
                raise InvalidParamError(f"there is no store {name!r} under stores")
        if from_store == to_store:
            raise InvalidParamError("a move needs two stores")
        source, target = self.stores.by_name[from_store], self.stores.by_name[to_store]
        if target.read_only:
            raise InvalidParamError(f"store {to_store} is read_only: nothing is stored there")
        await self.recency.check()
        for store, ours in ((source, self.markers.is_ours), (target, self.markers.claim)):
            if not await ours(store):
                raise InvalidParamError(f"store {store.name}: {NOT_OURS}")

    async def plan(self, selection: MoveSelection, tally: MoveTally) -> None:
        """Count what a selection chooses; changes nothing."""
        async for page in self.table.chosen(selection):
            for found in page:
                tally.plan(found, self.homeservers)

    async def to_undo(self, move_id: int | None) -> StoreMove:
        """Return a move, or the last one that was no undoing. Raises InvalidParamError when there is none."""
        for move in await self.table.moves():
            if move.move_id == move_id or (move_id is None and move.undoes is None):
                return move
        raise InvalidParamError("there is no move to undo" if move_id is None else f"there is no move {move_id}")

    async def move(
        self,
        selection: MoveSelection,
        to_store: str,
        by: str,
        tally: MoveTally,
        *,
        options: MoveOptions,
        undoes: int | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> int:
        """Move what a selection chooses, and what was not moved by then; gives the move's number.

        Raises LimitExceededError while another process moves objects, LeaseLostError when one has taken over, and
        UnavailableError when S3 or Postgres cannot serve for long: the same move goes on later.
        """
        await self.check(selection.from_store, to_store)
        async with self.lease_holder.acquire(LEASE) as lease:
            if lease is None:
                raise LimitExceededError(
                    "another process moves objects just now, or died a moment ago", retry_after_s=60
                )
            with fenced(lease):
                await self.plan(selection, tally)
                act = AdminAction(by=by, owner=OPERATOR, action="move_objects", at=self.homeservers)
                move_id = await self.table.begin(selection, to_store, act, tally.by_homeserver, undoes)
                async with self._running(move_id, lease.fence, selection, to_store, options, tally, stopping) as run:
                    await self._move_all(run, selection)
                await self.table.note(move_id, tally.figures(), ended=not tally.stopped)
        log.info("objects_moved", move=move_id, from_store=selection.from_store, to_store=to_store, **tally.figures())
        return move_id

    @asynccontextmanager
    async def _running(
        self,
        move_id: int,
        fence: int,
        selection: MoveSelection,
        to_store: str,
        options: MoveOptions,
        tally: MoveTally,
        stopping: Callable[[], bool],
    ) -> AsyncIterator[_Run]:
        """Have keys ready, renew intents, and leave none behind."""
        holder = f"move {move_id} {fence}"
        source, target = self.stores.by_name[selection.from_store], self.stores.by_name[to_store]
        keys = KeyPool(self.intents, holder, self.now_ms)
        copier = ObjectCopier(
            source=source,
            target=target,
            near=options.server_side and self._are_near(source.name, target.name),
            keys=keys,
            intents=self.intents,
            holder=holder,
            pace=Throttle(options.jobs, bytes_per_s=options.bytes_per_s),
            part_bytes=self.uploads.part_bytes,
            now_ms=self.now_ms,
            on_bytes=lambda count: _add(tally, count),
        )
        beating = asyncio.create_task(self._beat(move_id, holder, tally), name="move objects")
        try:
            yield _Run(move_id=move_id, target=target, copier=copier, options=options, tally=tally, stopping=stopping)
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            await keys.give_back()
        await self.intents.condemn_all(holder)

    def _are_near(self, one: str, other: str) -> bool:
        return _server(self.configs[one].endpoint_url) == _server(self.configs[other].endpoint_url)

    async def _beat(self, move_id: int, holder: str, tally: MoveTally) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                await self.intents.renew_all(holder)
                await self.table.note(move_id, tally.figures())
            except MatrixError as exc:
                log.warning("move_status_not_saved", reason=exc.message)

    async def _move_all(self, run: _Run, selection: MoveSelection) -> None:
        async for page in self.table.chosen(selection):
            run.former = await self.table.former_places([found.blob_id for found in page], run.target.name)
            queue = iter(page)

            async def work(queue: Iterator[MovableObject] = queue) -> None:
                for found in queue:
                    if run.stopping():
                        run.tally.stopped = True
                        return
                    await self._move_or_note(run, found)

            async with task_group() as group:
                for _ in range(run.options.jobs):
                    group.create_task(work())
            if run.tally.stopped:
                return

    async def _move_or_note(self, run: _Run, found: MovableObject) -> None:
        """Move one object; one that cannot be moved stays, and does not keep the others."""
        try:
            outcome = await self._patiently(lambda: self._move(run, found))
        except (LeaseLostError, StorageRefusesWritesError, StorageUnavailableError, DatabaseUnavailableError):
            raise
        except StorageError as exc:
            log.warning("object_not_moved", store=found.store, object_key=found.object_key, reason=str(exc))
            run.tally.note_failure(found, str(exc))
            return
        if outcome is MoveOutcome.LATE:
            run.tally.note_failure(found, "its copy took longer than the grace period of the sweep")
            return
        run.tally.note(found, outcome)

    async def _patiently(self, work: Callable[[], Awaitable[MoveOutcome]]) -> MoveOutcome:
        """Do work again after a pause while S3 or Postgres cannot serve."""
        for pause_s in self.pauses_s:
            try:
                return await work()
            except StorageRefusesWritesError:
                raise
            except (StorageUnavailableError, DatabaseUnavailableError) as exc:
                log.warning("move_paused", reason=str(exc), seconds=pause_s)
                await asyncio.sleep(pause_s)
        return await work()

    async def _move(self, run: _Run, found: MovableObject) -> MoveOutcome:
        target, grace_ms = run.target, run.options.grace_ms
        outcome = await self.table.join(found, target.name, grace_ms)
        if outcome is None and (place := run.former.get(found.blob_id)) is not None:
            outcome = await self._put_back(run, found, place)
        if outcome is not None:
            return outcome
        facts = await run.copier.examine(found)
        metadata = facts.metadata
        if found.ownership is Ownership.BORROWED or not metadata:
            metadata = await self._metadata(found)
        key = await run.copier.copy(found, facts, metadata)
        outcome = await self.table.switch(run.move_id, found, target.name, key, grace_ms)
        if outcome is MoveOutcome.TWIN:  # the copy is left to those that nobody has use for
            return await self.table.join(found, target.name, grace_ms) or MoveOutcome.GONE
        return outcome

    async def _put_back(self, run: _Run, found: MovableObject, place: ObjectPlace) -> MoveOutcome | None:
        """Use the object where it came from, if it is still there."""
        if await run.target.size_of(place.object_key) != found.size_bytes:
            return None
        return await self.table.put_back(run.move_id, found, place, run.options.grace_ms)

    async def _metadata(self, found: MovableObject) -> dict[str, str]:
        """Describe an object that says nothing of itself by its media's row, for a rebuild."""
        if found.store_class is StoreClass.THUMBNAILS:
            return {}
        media = await self.table.describe(found.blob_id)
        return {} if media is None else self.stores.metadata(media.mxc, media)


def _add(tally: MoveTally, count: int) -> None:
    tally.transferred_bytes += count


def _server(endpoint_url: str) -> tuple[str, int | None]:
    parts = urlsplit(endpoint_url)
    return (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme)
