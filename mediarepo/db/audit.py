"""What admins did, written down for good."""

from dataclasses import dataclass

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Database


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One deed: who, at which homeserver, what, to what, why, and how many media that concerned."""

    entry_id: int
    created_ts: int
    admin: str
    homeserver: str | None
    action: str
    target: str
    reason: str | None
    affected: int


class AuditLog:
    """Only ever added to; the database itself refuses anything else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, admin: str, homeserver: str | None, action: str, target: str, *, reason: str | None = None, affected: int
    ) -> None:
        """Write down a deed."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO audit_log (created_ts, admin, homeserver, action, target, reason, affected)
                    VALUES ({NOW_MS}, $1, $2, $3, $4, $5, $6)""",  # noqa: S608 - static text
                admin,
                homeserver,
                action,
                target,
                reason,
                affected,
            )

    async def read(
        self,
        before_id: int,
        limit: int,
        *,
        homeserver: str | None = None,
        target: str | None = None,
        admin: str | None = None,
    ) -> list[AuditEntry]:
        """Read entries, newest first, from below an id; of one homeserver, of one target, by one admin, or all."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT entry_id, created_ts, admin, homeserver, action, target, reason, affected FROM audit_log
                   WHERE entry_id < $1 AND ($3::text IS NULL OR homeserver = $3)
                       AND ($4::text IS NULL OR target = $4) AND ($5::text IS NULL OR admin = $5)
                   ORDER BY entry_id DESC LIMIT $2""",
                before_id,
                limit,
                homeserver,
                target,
                admin,
            )
        return [AuditEntry(*row.values()) for row in rows]
