"""Whether the database is as new as its buckets, and since when unknown objects have been seen."""

from collections.abc import Sequence

from mediarepo.db.database import NOW_MS, Database
from mediarepo.model.drift import StoreRecency

NOT_BEHIND = "NOT EXISTS (SELECT FROM store_recency WHERE behind_since_ts IS NOT NULL)"
"""Holds unless some bucket is newer than the database."""

_MOST_UNKNOWN = 100_000
"""So many unknown objects are remembered; those beyond wait until there is room, and are not deleted before."""


class RecencyTable:
    """Records, for all processes, what was seen in the buckets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now_ms(self) -> int:
        """Return the database's clock, in ms since 1970."""
        row = await self._database.get(f"SELECT {NOW_MS}")
        return int(row[0]) if row is not None else 0

    async def get(self, store: str) -> StoreRecency:
        """Return what was seen of one store."""
        row = await self._database.get(
            "SELECT store, seen_until_ts, behind_since_ts, lost_key FROM store_recency WHERE store = $1", store
        )
        return StoreRecency(store, None, None, None) if row is None else StoreRecency(*row)

    async def behind(self) -> list[StoreRecency]:
        """Return the stores that are newer than the database."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT store, seen_until_ts, behind_since_ts, lost_key FROM store_recency
                   WHERE behind_since_ts IS NOT NULL ORDER BY store"""
            )
        return [StoreRecency(*row) for row in rows]

    async def note_lost(self, store: str, lost_key: str, *, instead_of: str | None = None) -> None:
        """Record an object that the database should know and does not; the first one stays, or is replaced."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO store_recency (store, behind_since_ts, lost_key) VALUES ($1, {NOW_MS}, $2)
                    ON CONFLICT (store) DO UPDATE SET behind_since_ts = EXCLUDED.behind_since_ts, lost_key = $2
                        WHERE store_recency.lost_key IS NOT DISTINCT FROM $3""",
                store,
                lost_key,
                instead_of,
            )

    async def note_seen(self, store: str, until_ts: int, *, instead_of: str | None = None) -> None:
        """Record that all keys made before a time are known, and that a lost object is known again."""
        async with self._database.connection() as connection:
            await connection.execute(
                """INSERT INTO store_recency (store, seen_until_ts) VALUES ($1, $2)
                   ON CONFLICT (store) DO UPDATE SET seen_until_ts = $2, behind_since_ts = NULL, lost_key = NULL
                       WHERE store_recency.lost_key IS NOT DISTINCT FROM $3""",
                store,
                until_ts,
                instead_of,
            )

    async def newest_key(self, store: str, under: str) -> str | None:
        """Return the last key under a folder that a row mentions."""
        row = await self._database.get(
            "SELECT max(object_key) FROM blob WHERE store = $1 AND object_key > $2 AND object_key < $2 || '~'",
            store,
            under,
        )
        return None if row is None else row[0]

    async def knows_any(self, store: str) -> bool:
        """Return whether any row refers to an object of our own in a store."""
        row = await self._database.get(
            "SELECT EXISTS (SELECT FROM blob WHERE store = $1 AND ownership = 'owned')", store
        )
        return bool(row is not None and row[0])

    async def meet(self, store: str, object_keys: Sequence[str], now_ms: int) -> None:
        """Record which unknown objects were met in this pass."""
        async with self._database.connection() as connection:
            await connection.execute(
                """INSERT INTO unknown_object (store, object_key, first_seen_ts, last_seen_ts)
                   SELECT $1, k, $3, $3 FROM unnest($2::text[]) AS k
                   WHERE (SELECT count(*) FROM unknown_object) < $4
                       OR EXISTS (SELECT FROM unknown_object WHERE store = $1 AND object_key = k)
                   ON CONFLICT (store, object_key) DO UPDATE SET last_seen_ts = $3""",
                store,
                list(object_keys),
                now_ms,
                _MOST_UNKNOWN,
            )

    async def old_enough(self, store: str, object_keys: Sequence[str], now_ms: int, age_ms: int) -> list[str]:
        """Return the unknown objects first met long enough before this pass."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT object_key FROM unknown_object
                   WHERE store = $1 AND object_key = ANY($2::text[])
                       AND first_seen_ts < $3 AND first_seen_ts <= $3 - $4""",
                store,
                list(object_keys),
                now_ms,
                age_ms,
            )
        return [row["object_key"] for row in rows]

    async def forget_unmet(self, store: str, now_ms: int) -> None:
        """Remove objects that a whole pass did not meet: they are deleted, or known by now."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM unknown_object WHERE store = $1 AND last_seen_ts < $2", store, now_ms)
