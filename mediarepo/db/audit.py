"""The audit log, written in the transaction that did what it says."""

from collections import Counter
from collections.abc import Iterable, Mapping

from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.errors import InvalidParamError
from mediarepo.model.marks import AdminAction, AuditEntry
from mediarepo.model.mxc import Mxc

AuditTuple = tuple[str | None, str, int]
"""In whose audit (None: the operator's alone), of what, how many media."""


class AuditLog:
    """The append-only audit log; the database refuses updates and deletes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, act: AdminAction, target: str, affected: int) -> None:
        """Record an action that changed no row."""
        async with self._database.transaction() as connection:
            await write_entry(connection, act, target, affected)

    async def add_counts(self, act: AdminAction, target: str, counts: Mapping[str, int]) -> None:
        """Write down an act that changed nothing, in the audit of each homeserver of `counts` with its own count."""
        async with self._database.transaction() as connection:
            await write_entries(connection, act, [(name, target, count) for name, count in counts.items()])

    async def read(
        self,
        before_id: str | None,
        limit: int,
        *,
        homeserver: str | None = None,
        target: str | None = None,
        admin: str | None = None,
        action: str | None = None,
        since_ts: int | None = None,
        until_ts: int | None = None,
    ) -> list[AuditEntry]:
        """Return entries, newest first, before an entry; of one homeserver, target, admin or action, or all.

        "command line" as the admin matches every system user. Entries have random keys: numbers would tell a homeserver
        how much is done at others. Raises InvalidParamError for a `before` that is not in this log.
        """
        async with self._database.connection() as connection:
            before = None if before_id is None else await _place(connection, before_id, homeserver)
            rows = await connection.fetch(
                """SELECT entry_key::text, created_ts, admin, homeserver, action, target, reason, affected,
                       client_address
                   FROM audit_log
                   WHERE ($1::bigint IS NULL OR entry_id < $1) AND ($3::text IS NULL OR homeserver = $3)
                       AND ($4::text IS NULL OR target = $4)
                       AND ($5::text IS NULL OR admin = $5 OR starts_with(admin, $5 || ' ('))
                       AND ($6::text IS NULL OR action = $6)
                       AND ($7::bigint IS NULL OR created_ts >= $7) AND ($8::bigint IS NULL OR created_ts < $8)
                   ORDER BY entry_id DESC LIMIT $2""",
                before,
                limit,
                homeserver,
                target,
                admin,
                action,
                since_ts,
                until_ts,
            )
        return [AuditEntry(*row.values()) for row in rows]


async def _place(connection: Connection, entry_id: str, homeserver: str | None) -> int:
    """Find where an entry stands in the log; `entry_id` is a UUID."""
    place = await connection.fetchval(
        "SELECT entry_id FROM audit_log WHERE entry_key = $1::uuid AND ($2::text IS NULL OR homeserver = $2)",
        entry_id,
        homeserver,
    )
    if place is None:
        raise InvalidParamError("before_id is not an entry of this log")
    return int(place)


async def write_entry(connection: Connection, act: AdminAction, target: str, affected: int) -> None:
    """Write an action into the audit of each homeserver that it concerns."""
    await write_entries(connection, act, [(name, target, affected) for name in homeservers_of(act, target)])


async def write_entries(connection: Connection, act: AdminAction, entries: Iterable[AuditTuple]) -> None:
    """Write entries: the homeserver (None: the operator's alone), the target, the number of media."""
    listed = list(entries)
    await connection.execute(
        f"""INSERT INTO audit_log (created_ts, admin, homeserver, action, target, reason, affected, client_address)
            SELECT {NOW_MS}, $1, e.homeserver, $2, e.target, $3, e.affected, $4
            FROM unnest($5::text[], $6::text[], $7::bigint[]) WITH ORDINALITY AS e (homeserver, target, affected, place)
            ORDER BY e.place""",
        act.by,
        act.action,
        act.reason,
        act.client_address,
        [name for name, _, _ in listed],
        [target for _, target, _ in listed],
        [affected for _, _, affected in listed],
    )


def homeservers_of(act: AdminAction, target: str) -> list[str | None]:
    """Return the homeservers that an action concerns: that of the media or user, the one who acts, or all."""
    server_name = target.removeprefix("mxc://").partition("/")[0] if target.startswith("mxc://") else ""
    if target.startswith("@"):
        server_name = target.partition(":")[2]
    if server_name in act.at:
        return [server_name]
    if not act.by_operator:
        return [act.owner]
    return [*act.at] or [None]


def removal_entries(act: AdminAction, target: str, mxcs: Iterable[Mxc]) -> list[AuditTuple]:
    """Return one entry with its own count for each homeserver that removed media concern.

    Media of other servers concern all homeservers.
    """
    names = Counter(mxc.server_name for mxc in mxcs)
    shared = sum(count for name, count in names.items() if name not in act.at)
    counts = {name: names[name] + shared for name in act.at}
    entries: list[AuditTuple] = [(name, target, count) for name, count in counts.items() if count]
    return entries or ([(None, target, shared)] if shared else [])


def mxc_entries(act: AdminAction, mxcs: Iterable[Mxc]) -> list[AuditTuple]:
    """Return one entry for each of some media, for the audit of each homeserver that it concerns."""
    return [(name, str(mxc), 1) for mxc in mxcs for name in homeservers_of(act, str(mxc))]
