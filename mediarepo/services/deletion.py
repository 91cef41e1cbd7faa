"""Deleting media: first into the trash, then for good; each act is written down."""

from dataclasses import dataclass
from functools import partial

import structlog

from mediarepo.config.admin import AdminConfig
from mediarepo.db.audit import AuditLog
from mediarepo.db.marks import MarkTable
from mediarepo.db.trash import TrashTable
from mediarepo.errors import HomeserverUnavailableError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.model.authority import Action, Thing
from mediarepo.model.failed_items import Queue
from mediarepo.model.marks import AdminAction, LeftOut, MarkKind, Outcome
from mediarepo.model.mxc import Mxc
from mediarepo.services.admins import Admin
from mediarepo.services.authorization import Authorization
from mediarepo.services.batch_isolation import BatchIsolation

log = structlog.get_logger(__name__)

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Deletes what admins name; what is under a legal hold stays."""

    config: AdminConfig
    trash: TrashTable
    marks: MarkTable
    authorization: Authorization
    homeserver_admins: HomeserverAdmins
    audit: AuditLog
    isolation: BatchIsolation

    async def delete(self, mxcs: list[Mxc], admin: Admin, *, reason: str | None = None) -> list[Mxc]:
        """Move media into the trash; gives those that were."""
        for mxc in mxcs:
            self.authorization.check_media(admin, Action.DELETE, mxc)
        act, gone = self._act(admin, "delete", reason), list[Mxc]()
        for start in range(0, len(mxcs), _BATCH):
            gone += await self.trash.put(mxcs[start : start + _BATCH], act)
        return gone

    async def delete_one(self, mxc: Mxc, admin: Admin, *, reason: str | None) -> Outcome:
        """Move one into the trash, and say why not if it stays."""
        gone = await self.delete([mxc], admin, reason=reason)
        held = 0 if gone else await self.trash.held([mxc])
        return Outcome(len(gone), {LeftOut.HELD: held} if held else {})

    async def delete_idle(self, admin: Admin, *, before_ts: int, size_over: int, keep_profiles: bool) -> list[Mxc]:
        """Move the homeserver's media into the trash that nobody asked for since, avatars aside if wanted."""
        server_name = admin.homeserver.server_name
        avatars = await self._avatars(admin) if keep_profiles else set[str]()
        found = await self.trash.idle_local(server_name, before_ts, size_over, 1_000_000)
        return await self.delete([mxc for mxc in found if str(mxc) not in avatars], admin)

    async def _avatars(self, admin: Admin) -> set[str]:
        """Learn which media are avatars; not knowing is a reason to refuse, not to delete."""
        if admin.token is None:
            raise HomeserverUnavailableError(
                "avatars are known to the homeserver only: use a token of its admin, or keep_profiles=false"
            )
        return await self.homeserver_admins.avatars(admin.homeserver, admin.token)

    async def restore(self, mxc: Mxc, admin: Admin, *, reason: str | None = None) -> Outcome:
        """Take media out of the trash; ForbiddenError when the operator put them there, and somebody else asks."""
        self.authorization.check_media(admin, Action.RESTORE, mxc)
        return await self.trash.take_back(mxc, self._act(admin, "restore", reason))

    async def hold(self, mxc: Mxc, admin: Admin, *, held: bool, reason: str | None) -> Outcome:
        """Keep media from being deleted by anybody, or no longer; an operator's hold only the operator releases."""
        self.authorization.check_media(admin, Action.HOLD if held else Action.RELEASE, mxc)
        if held:
            return await self.marks.put(mxc, MarkKind.HOLD, self._act(admin, "hold", reason))
        return await self.marks.lift(mxc, MarkKind.HOLD, self._act(admin, "release", reason))

    async def pin(self, mxc: Mxc, admin: Admin, *, pinned: bool, reason: str | None = None) -> Outcome:
        """Keep media from retention and from deletion by date, or no longer."""
        self.authorization.check_media(admin, Action.PIN if pinned else Action.UNPIN, mxc)
        if pinned:
            return await self.marks.put(mxc, MarkKind.PIN, self._act(admin, "pin", reason))
        return await self.marks.lift(mxc, MarkKind.PIN, self._act(admin, "unpin", reason))

    async def purge_remote(self, admin: Admin, *, before_ts: int) -> int:
        """Forget other servers' media that nobody asked for since."""
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
        """Let go of what has been in the trash for long enough."""
        empty = partial(self.trash.empty, age_ms=self.config.trash_ms)
        async with self.isolation.whole_queue(Queue.TRASH):
            while mxcs := await self.trash.due(self.config.trash_ms, _BATCH):
                outcome = await self.isolation.run(Queue.TRASH, mxcs, empty)
                log.info("trash_emptied", media=outcome.done, set_aside=outcome.failed)
                if not outcome.done and not outcome.failed:
                    break  # others are at them

    def _act(self, admin: Admin, action: str, reason: str | None) -> AdminAction:
        return self.authorization.admin_action(admin, action, reason)
