"""Deleting media: first into the trash, then for good; each deed is written down."""

from dataclasses import dataclass
from functools import partial

import structlog

from mediarepo.config.administration import AdminConfig
from mediarepo.db.audit import AuditLog
from mediarepo.db.trash import TrashTable
from mediarepo.errors import HomeserverUnavailableError
from mediarepo.homeserver.admins import HomeserverAdmins
from mediarepo.model.failed_items import Queue
from mediarepo.model.mxc import Mxc
from mediarepo.services.admins import Admin
from mediarepo.services.batch_isolation import BatchIsolation

log = structlog.get_logger(__name__)

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Deletes what admins name; what is under a legal hold stays."""

    config: AdminConfig
    trash: TrashTable
    homeserver_admins: HomeserverAdmins
    audit: AuditLog
    isolation: BatchIsolation

    async def delete(self, mxcs: list[Mxc], admin: Admin, *, reason: str | None = None) -> list[Mxc]:
        """Move media into the trash; gives those that were."""
        gone = []
        for start in range(0, len(mxcs), _BATCH):
            gone += await self.trash.put(mxcs[start : start + _BATCH])
        for mxc in gone:
            await self._note(admin, "delete", str(mxc), 1, reason)
        return gone

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

    async def restore(self, mxc: Mxc, admin: Admin) -> bool:
        """Take media out of the trash."""
        found = await self.trash.take_back(mxc)
        await self._note(admin, "restore", str(mxc), int(found))
        return found

    async def hold(self, mxc: Mxc, admin: Admin, *, held: bool, reason: str | None) -> bool:
        """Keep media from being deleted by anybody, or no longer."""
        found = await self.trash.hold(mxc, by=admin.name if held else None, reason=reason if held else None)
        await self._note(admin, "hold" if held else "release", str(mxc), int(found), reason)
        return found

    async def pin(self, mxc: Mxc, admin: Admin, *, pinned: bool) -> bool:
        """Keep media from retention and from deletion by date, or no longer."""
        found = await self.trash.pin(mxc, by=admin.name if pinned else None)
        await self._note(admin, "pin" if pinned else "unpin", str(mxc), int(found))
        return found

    async def purge_remote(self, admin: Admin, *, before_ts: int) -> int:
        """Forget other servers' media that nobody asked for since."""
        total = 0
        forget = partial(self.trash.forget_idle_remote, before_ts=before_ts)
        while mxcs := await self.trash.idle_remote(before_ts, _BATCH):
            outcome = await self.isolation.run(Queue.REMOTE_MEDIA, mxcs, forget)
            total += outcome.done
            if not outcome.done and not outcome.failed:
                break  # others are at them
        await self._note(admin, "purge_remote", f"before {before_ts}", total)
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

    async def _note(self, admin: Admin, action: str, target: str, affected: int, reason: str | None = None) -> None:
        server_name = admin.homeserver.server_name
        await self.audit.add(admin.name, server_name, action, target, reason=reason, affected=affected)
