"""Leases: rows that say which process does a piece of work just now.

A row and not an advisory lock, which would pin a connection; a holder that dies is replaced once its time is up, and
whatever it still writes then carries a fence that no longer stands in the row.
"""

from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.model.tasks import Lease

SERVER_LEASE = "server "
"""What the names of leases begin with that say that a server runs."""


class Leases:
    """Grants, renews and ends leases, by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, name: str, duration_ms: int) -> Lease | None:
        """Take a lease that nobody holds; None while somebody does."""
        async with self._database.connection() as connection:
            fence = await connection.fetchval(
                f"""INSERT INTO lease (name, expires_ts) VALUES ($1, {NOW_MS} + $2::bigint)
                ON CONFLICT (name) DO UPDATE SET fence = DEFAULT, expires_ts = EXCLUDED.expires_ts
                    WHERE lease.expires_ts < {NOW_MS}
                RETURNING fence""",  # noqa: S608 - static text
                name,
                duration_ms,
            )
        return None if fence is None else Lease(name, fence)

    async def renew(self, lease: Lease, duration_ms: int) -> bool:
        """Hold a lease for longer; False when it is somebody else's by now."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"UPDATE lease SET expires_ts = {NOW_MS} + $3::bigint WHERE name = $1 AND fence = $2",  # noqa: S608 - static text
                lease.name,
                lease.fence,
                duration_ms,
            )
        return bool(tag == "UPDATE 1")

    async def release(self, lease: Lease) -> None:
        """End a lease before its time."""
        async with self._database.connection() as connection:
            await end_lease(connection, lease)

    async def forget_expired(self, age_ms: int) -> int:
        """Remove rows of leases that ran out at least so long ago; returns how many."""
        async with self._database.connection() as connection:
            tag = await connection.execute(f"DELETE FROM lease WHERE expires_ts < {NOW_MS} - $1::bigint", age_ms)  # noqa: S608 - static text
        return int(tag.rpartition(" ")[2])


async def end_lease(connection: Connection, lease: Lease) -> bool:
    """End a lease within a transaction; False when it was lost before."""
    tag = await connection.execute("DELETE FROM lease WHERE name = $1 AND fence = $2", lease.name, lease.fence)
    return bool(tag == "DELETE 1")
