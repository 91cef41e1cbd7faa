"""Deletes media: into the trash first, then for good; and deletes queued objects from S3."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from mediarepo.config.admin import AdminConfig
from mediarepo.db.audit import AuditLog
from mediarepo.db.deletion import Outbox, QueuedDeletion
from mediarepo.db.media_marks import MarkTable
from mediarepo.db.trash import TrashTable
from mediarepo.errors import HomeserverUnavailableError, MatrixError, UnavailableError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.model.authority import Action, Thing
from mediarepo.model.marks import OPERATOR, AdminAction, LeftOut, MarkKind, Outcome
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue
from mediarepo.services.authorization import Admin, Authorization
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.recency import Recency
from mediarepo.services.stores import Stores
from mediarepo.storage.errors import StorageError, StorageUnavailableError
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

_BATCH = 500
_BY_ITSELF = "mediarepo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Deletes media for admins; media under a legal hold stay."""

    config: AdminConfig
    trash: TrashTable
    marks: MarkTable
    authorization: Authorization
    homeserver_admins: HomeserverAdmins
    audit: AuditLog
    isolation: BatchIsolation
    recency: Recency

    async def delete(self, mxcs: list[Mxc], admin: Admin, *, reason: str | None = None) -> list[Mxc]:
        """Move media into the trash; returns those moved."""
        for mxc in mxcs:
            self.authorization.check_media(admin, Action.DELETE, mxc)
        act, gone = self._act(admin, "delete", reason), list[Mxc]()
        for start in range(0, len(mxcs), _BATCH):
            gone += await self.trash.put(mxcs[start : start + _BATCH], act)
        return gone

    async def delete_one(self, mxc: Mxc, admin: Admin, *, reason: str | None) -> Outcome:
        """Move one into the trash; returns why not if it stays."""
        gone = await self.delete([mxc], admin, reason=reason)
        held = 0 if gone else await self.trash.held([mxc])
        return Outcome(len(gone), {LeftOut.HELD: held} if held else {})

    async def delete_idle(self, admin: Admin, *, before_ts: int, size_over: int, keep_profiles: bool) -> list[Mxc]:
        """Move the homeserver's unused media into the trash, avatars excluded if wanted."""
        server_name = admin.homeserver.server_name
        avatars = await self._avatars(admin) if keep_profiles else set[str]()
        found = await self.trash.idle_local(server_name, before_ts, size_over, 1_000_000)
        return await self.delete([mxc for mxc in found if str(mxc) not in avatars], admin)

    async def _avatars(self, admin: Admin) -> set[str]:
        """Learn which media are avatars; not knowing is a reason to refuse, not to delete."""
        if admin.token is None:
            raise HomeserverUnavailableError(
                "only the homeserver knows avatars: use an access token of its admin, or keep_profiles=false"
            )
        return await self.homeserver_admins.avatars(admin.homeserver, admin.token)

    async def restore(self, mxc: Mxc, admin: Admin, *, reason: str | None = None) -> Outcome:
        """Restore media from the trash.

        Raises ForbiddenError when the operator put them there, and somebody else asks.
        """
        self.authorization.check_media(admin, Action.RESTORE, mxc)
        return await self.trash.take_back(mxc, self._act(admin, "restore", reason))

    async def hold(self, mxc: Mxc, admin: Admin, *, held: bool, reason: str | None) -> Outcome:
        """Set or lift a legal hold, which prevents every deletion; only the operator lifts an operator's hold."""
        self.authorization.check_media(admin, Action.HOLD if held else Action.RELEASE, mxc)
        if held:
            return await self.marks.put(mxc, MarkKind.HOLD, self._act(admin, "hold", reason))
        return await self.marks.lift(mxc, MarkKind.HOLD, self._act(admin, "release", reason))

    async def pin(self, mxc: Mxc, admin: Admin, *, pinned: bool, reason: str | None = None) -> Outcome:
        """Set or remove a pin, which exempts from retention and from deletion by date."""
        self.authorization.check_media(admin, Action.PIN if pinned else Action.UNPIN, mxc)
        if pinned:
            return await self.marks.put(mxc, MarkKind.PIN, self._act(admin, "pin", reason))
        return await self.marks.lift(mxc, MarkKind.PIN, self._act(admin, "unpin", reason))

    async def purge_remote(self, admin: Admin, *, before_ts: int) -> int:
        """Delete cached remote media that were not used since."""
        self.authorization.check(admin, Action.PURGE, Thing.REMOTE_MEDIA)
        total, act = 0, self._act(admin, "purge_remote", None)
        forget = partial(self.trash.forget_idle_remote, before_ts=before_ts, act=act)
        while mxcs := await self.trash.idle_remote(before_ts, _BATCH):
            outcome = await self.isolation.run(Queue.REMOTE_MEDIA, mxcs, forget)
            total += outcome.done
            if not outcome.done and not outcome.failed:
                break  # others are at them
        if not total:
            await self.audit.add(act, f"before {before_ts}", 0)
        return total

    async def empty_trash(self) -> None:
        """Delete what has been in the trash long enough.

        Raises BehindError when the database is older than a bucket.
        """
        await self.recency.check()
        act = AdminAction(by=_BY_ITSELF, owner=OPERATOR, action="empty_trash", at=self.authorization.tenants.names)
        empty = partial(self.trash.empty, age_ms=self.config.trash_ms, act=act)
        async with self.isolation.drain_queue(Queue.TRASH):
            while mxcs := await self.trash.due(self.config.trash_ms, _BATCH):
                outcome = await self.isolation.run(Queue.TRASH, mxcs, empty)
                log.info("trash_emptied", media=outcome.done, set_aside=outcome.failed)
                if not outcome.done and not outcome.failed:
                    break  # others are at them

    def _act(self, admin: Admin, action: str, reason: str | None) -> AdminAction:
        return self.authorization.admin_action(admin, action, reason)


_OUTBOX_BATCH = 1000
_OUTAGE = 3
"""So many aborts in a row that the store cannot serve are no longer one upload's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxWorker:
    """Empties the outbox."""

    outbox: Outbox
    stores: Stores
    on_backlog: Callable[[int], None]
    recency: Recency

    async def drain(self) -> int:
        """Execute all deletions that are due; returns how many objects are deleted.

        None is deleted while the database is older than a bucket: it may not know what is still wanted.
        """
        gone = 0
        if await self.outbox.any_due():
            unseen = await self.recency.unseen()
            while claimed := await self.outbox.claim(_OUTBOX_BATCH, leave_out=unseen):
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
                    log.warning("object_deletion_deferred", store=name, count=len(batch), reason=str(exc))
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
