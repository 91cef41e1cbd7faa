"""Hiding media, by themselves, by who uploaded them, by the room they are in; each deed is written down."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from mediarepo.db.audit import AuditLog
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.records import RecordTable
from mediarepo.errors import InvalidParamError, NotFoundError, UnavailableError
from mediarepo.homeserver.admins import HomeserverAdmins
from mediarepo.homeserver.tenants import Tenants
from mediarepo.model.mxc import Mxc, parse_mxc
from mediarepo.model.records import Change, HiddenHash
from mediarepo.model.short_content import without_short_content
from mediarepo.services.admins import Admin
from mediarepo.services.hashing import Hashing

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Hides media and everything with the same content, wherever it is from and whoever asks for it."""

    table: QuarantineTable
    records: RecordTable
    tenants: Tenants
    homeserver_admins: HomeserverAdmins
    hashing: Hashing
    audit: AuditLog

    async def hide(self, mxc: Mxc, admin: Admin, *, reason: str | None = None) -> int:
        """Hide media; unknown ones of other servers are hidden in advance."""
        count = await self._hide([mxc], admin, reason)
        await self._note(admin, "quarantine", str(mxc), reason, count)
        return count

    async def hide_of_user(self, user_id: str, admin: Admin) -> int:
        """Hide everything that a user uploaded."""
        count = await self._hide(await self.table.of_user(user_id), admin, None)
        await self._note(admin, "quarantine_user", user_id, None, count)
        return count

    async def hide_of_room(self, room_id: str, admin: Admin) -> int:
        """Hide everything that a room's events mention, as far as the homeserver can tell."""
        if admin.token is None:
            raise InvalidParamError("a room's media are known to the homeserver only: use a token of its admin")
        uris = await self.homeserver_admins.room_media(admin.homeserver, admin.token, room_id)
        count = await self._hide(list(_parsed(uris)), admin, None)
        await self._note(admin, "quarantine_room", room_id, None, count)
        return count

    async def hide_server(self, server_name: str, admin: Admin, *, reason: str | None) -> bool:
        """Hide everything of another server; not of one of ours."""
        if self.tenants.is_ours(server_name):
            raise InvalidParamError("only other servers can be hidden as a whole")
        hidden = await self.table.hide_server(server_name, by=admin.name, reason=reason)
        await self._note(admin, "quarantine_server", server_name, reason, int(hidden))
        return hidden

    async def show_server(self, server_name: str, admin: Admin) -> bool:
        """Show another server's media again."""
        shown = await self.table.show_server(server_name)
        await self._note(admin, "unquarantine_server", server_name, None, int(shown))
        return shown

    async def show(self, mxc: Mxc, admin: Admin) -> int:
        """Show media again, and everything with the same content."""
        count = await self.table.show([mxc])
        await self._note(admin, "unquarantine", str(mxc), None, count)
        return count

    async def protect(self, mxc: Mxc, admin: Admin, *, protected: bool) -> bool:
        """Spare media of quarantine, or no longer."""
        known = await self.table.protect(mxc, protected=protected)
        await self._note(admin, "protect" if protected else "unprotect", str(mxc), None, int(known))
        return known

    async def hide_hashes(self, hashes: Sequence[bytes], admin: Admin, *, reason: str | None) -> int:
        """Hide content by SHA-256, whether it is here already or not; not what says nothing."""
        hashes = without_short_content(hashes)
        count = await self.table.hide_hashes(hashes, by=admin.name, reason=reason)
        for sha256 in hashes:
            await self._note(admin, "quarantine_hash", sha256.hex(), reason, 1)
        return count

    async def show_hashes(self, hashes: Sequence[bytes], admin: Admin) -> int:
        """Show content again that was hidden by SHA-256."""
        count = await self.table.show_hashes(hashes)
        for sha256 in hashes:
            await self._note(admin, "unquarantine_hash", sha256.hex(), None, 1)
        return count

    async def all_hashes(self) -> AsyncIterator[HiddenHash]:
        """Walk through all hidden hashes, in their order."""
        after = b""
        while page := await self.table.hashes(after, _PAGE):
            after = page[-1].sha256
            for one in page:
                yield one

    async def changes(self, after_id: int, limit: int) -> list[Change]:
        """Read what was hidden and shown, oldest first; InvalidParamError for a number that does not exist yet."""
        if after_id > await self.table.last_change():
            raise InvalidParamError("Query parameter from is higher than the newest change")
        return await self.table.changes(after_id, limit)

    async def _hide(self, mxcs: Sequence[Mxc], admin: Admin, reason: str | None) -> int:
        found = [mxc for mxc in mxcs if self._reaches(admin, mxc) and await self._can_be_hidden(mxc)]
        try:
            await self.hashing.learn_of(found)
        except UnavailableError:
            await self.table.hide(
                found, by=admin.name, reason=reason
            )  # by address at least; equal content when asked again
            raise
        return await self.table.hide(found, by=admin.name, reason=reason) if found else 0

    def _reaches(self, admin: Admin, mxc: Mxc) -> bool:
        """Leave out other homeservers' own media, which are not this admin's to judge; equal content is hidden too."""
        own = admin.is_operator or mxc.server_name == admin.homeserver.server_name
        return own or not self.tenants.is_ours(mxc.server_name)

    async def _can_be_hidden(self, mxc: Mxc) -> bool:
        """Leave out what nobody has and nobody can get: unknown ids of our own homeservers."""
        return not self.tenants.is_ours(mxc.server_name) or await self.records.get(mxc) is not None

    async def _note(self, admin: Admin, action: str, target: str, reason: str | None, affected: int) -> None:
        server_name = admin.homeserver.server_name
        await self.audit.add(admin.name, server_name, action, target, reason=reason, affected=affected)


def _parsed(uris: Sequence[str]) -> set[Mxc]:
    """Read addresses as events mention them, fragments left out; what is no address is passed over."""
    found = set()
    for uri in uris:
        server_name, _, media_id = uri.removeprefix("mxc://").partition("#")[0].partition("/")
        try:
            found.add(parse_mxc(server_name, media_id))
        except (InvalidParamError, NotFoundError):
            continue
    return found
