"""What admins did, for admins to read."""

from dataclasses import dataclass

from mediarepo.db.audit import AuditEntry, AuditLog
from mediarepo.services.admins import Admin


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTrail:
    """Reads the log."""

    log: AuditLog

    async def read(
        self, admin: Admin, before_id: int, limit: int, *, target: str | None, by: str | None
    ) -> list[AuditEntry]:
        """Read entries, newest first; single homeservers' admins read what was done at theirs."""
        homeserver = None if admin.is_operator else admin.homeserver.server_name
        return await self.log.read(before_id, limit, homeserver=homeserver, target=target, admin=by)
