"""The audit log, written in the transaction that did what it says."""

from collections.abc import Iterable
from dataclasses import dataclass

from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.model.marks import AdminAction
from mediarepo.model.mxc import Mxc


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act: who, at which homeserver, what, to what, why, how many media that concerned, and from where."""

    entry_id: int
    created_ts: int
    admin: str
    homeserver: str | None
    action: str
    target: str
    reason: str | None
    affected: int
    client_address: str | None = None


class AuditLog:
    """Only ever added to; the database itself refuses anything else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, act: AdminAction, target: str, affected: int) -> None:
        """Write down an act that changed nothing in the database."""
        async with self._database.transaction() as connection:
            await write_entry(connection, act, target, affected)

    async def read(
        self,
        before_id: int,
        limit: int,
        *,
        homeserver: str | None = None,
        target: str | None = None,
        admin: str | None = None,
    ) -> list[AuditEntry]:
        """Read entries, newest first, from below an id; of one homeserver, of one target, by one admin, or all.

        "command line" as the admin stands for every system user at it.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT entry_id, created_ts, admin, homeserver, action, target, reason, affected, client_address
                   FROM audit_log
                   WHERE entry_id < $1 AND ($3::text IS NULL OR homeserver = $3)
                       AND ($4::text IS NULL OR target = $4)
                       AND ($5::text IS NULL OR admin = $5 OR starts_with(admin, $5 || ' ('))
                   ORDER BY entry_id DESC LIMIT $2""",
                before_id,
                limit,
                homeserver,
                target,
                admin,
            )
        return [AuditEntry(*row.values()) for row in rows]


async def write_entry(connection: Connection, act: AdminAction, target: str, affected: int) -> None:
    """Write an act into the audit of each homeserver that it concerns."""
    await write_entries(connection, act, [(name, target, affected) for name in homeservers_of(act, target)])


async def write_entries(
    connection: Connection, act: AdminAction, entries: Iterable[tuple[str | None, str, int]]
) -> None:
    """Write entries: in whose audit (None: the operator's alone), of what, how many media."""
    listed = list(entries)
    await connection.execute(
        f"""INSERT INTO audit_log (created_ts, admin, homeserver, action, target, reason, affected, client_address)
            SELECT {NOW_MS}, $1, e.homeserver, $2, e.target, $3, e.affected, $4
            FROM unnest($5::text[], $6::text[], $7::bigint[]) WITH ORDINALITY AS e (homeserver, target, affected, place)
            ORDER BY e.place""",  # noqa: S608 - static text
        act.by,
        act.action,
        act.reason,
        act.client_address,
        [name for name, _, _ in listed],
        [target for _, target, _ in listed],
        [affected for _, _, affected in listed],
    )


def homeservers_of(act: AdminAction, target: str) -> list[str | None]:
    """Name the homeservers that an act concerns: the one whose media or user it is, who acts, or all."""
    server_name = target.removeprefix("mxc://").partition("/")[0] if target.startswith("mxc://") else ""
    if target.startswith("@"):
        server_name = target.partition(":")[2]
    if server_name in act.at:
        return [server_name]
    if not act.by_operator:
        return [act.owner]
    return [*act.at] or [None]


def mxc_entries(act: AdminAction, mxcs: Iterable[Mxc]) -> list[tuple[str | None, str, int]]:
    """Make one entry for each of some media, in the audit of each homeserver that it concerns."""
    return [(name, str(mxc), 1) for mxc in mxcs for name in homeservers_of(act, str(mxc))]
