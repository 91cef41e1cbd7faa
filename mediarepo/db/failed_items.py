"""Items that background work has set aside, and when each is retried."""

from collections.abc import Sequence

from mediarepo.db.audit import write_entry
from mediarepo.db.database import NOW_MS, Database
from mediarepo.model.marks import AdminAction
from mediarepo.model.tasks import FailedItem, Queue, item_key, storable_text

_RETRY_MS = 60_000
_MAX_RETRY_MS = 6 * 3_600_000
_MAX_ERROR_CHARS = 500
_ALL = """(SELECT queue, item_key, error, attempts, first_ts, last_ts, retry_ts FROM failed_item
    UNION ALL SELECT 'object_deletions', store || ': ' || object_key, last_error, attempts, queued_ts, queued_ts,
        next_attempt_ts FROM object_deletion WHERE last_error IS NOT NULL) f"""


def is_due(queue: Queue, key: str) -> str:
    """Return the SQL condition that an item, by the SQL expression of its key, is not set aside now."""
    return f"""NOT EXISTS (SELECT FROM failed_item f
        WHERE f.queue = '{queue}' AND f.item_key = {key} AND f.retry_ts > {NOW_MS})"""


class FailedItems:
    """Records items that could not be processed, and when each is retried."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def note(self, queue: Queue, key: str, error: str) -> None:
        """Set an item aside; each further failure doubles the delay before its retry, up to six hours."""
        async with self.database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO failed_item AS f (queue, item_key, error, first_ts, last_ts, retry_ts)
                    VALUES ($1, $2, $3, {NOW_MS}, {NOW_MS}, {NOW_MS} + {_RETRY_MS})
                    ON CONFLICT (queue, item_key) DO UPDATE SET error = EXCLUDED.error, attempts = f.attempts + 1,
                        last_ts = EXCLUDED.last_ts,
                        retry_ts = {NOW_MS} + least({_RETRY_MS} * (1 << least(f.attempts, 10)), {_MAX_RETRY_MS})""",
                queue,
                item_key(key),
                storable_text(error, _MAX_ERROR_CHARS) or "unknown",
            )

    async def due(self, queue: Queue, keys: Sequence[str]) -> set[str]:
        """Return those keys that are not set aside now."""
        by_key = {item_key(key): key for key in keys}
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT item_key FROM failed_item
                    WHERE queue = $1 AND item_key = ANY($2::text[]) AND retry_ts > {NOW_MS}""",
                queue,
                list(by_key),
            )
        return set(keys) - {by_key[row["item_key"]] for row in rows}

    async def forget(self, queue: Queue, keys: Sequence[str]) -> None:
        """Remove items that were processed."""
        async with self.database.connection() as connection:
            await connection.execute(
                "DELETE FROM failed_item WHERE queue = $1 AND item_key = ANY($2::text[])",
                queue,
                [item_key(key) for key in keys],
            )

    async def now_ms(self) -> int:
        """Return the database's clock, in ms since 1970."""
        row = await self.database.get(f"SELECT {NOW_MS}")
        return int(row[0]) if row is not None else 0

    async def forget_untried(self, queue: Queue, before_ts: int) -> None:
        """Remove items that were due by `before_ts` and have not failed again since."""
        async with self.database.connection() as connection:
            await connection.execute("DELETE FROM failed_item WHERE queue = $1 AND retry_ts <= $2", queue, before_ts)

    async def forget_gone(self, age_ms: int) -> None:
        """Remove items that nothing has retried for so long after they were due: they no longer exist."""
        async with self.database.connection() as connection:
            await connection.execute(
                f"DELETE FROM failed_item WHERE retry_ts < {NOW_MS} - $1::bigint",
                age_ms,
            )

    async def count(self) -> dict[str, int]:
        """Return how many items are set aside, by queue."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(f"SELECT queue, count(*) FROM {_ALL} GROUP BY queue ORDER BY queue")
        return {row["queue"]: row["count"] for row in rows}

    async def read(self, *, queue: str | None, limit: int) -> list[FailedItem]:
        """Return items of one queue or of all, most recent failure first."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT queue, item_key, error, attempts, first_ts, last_ts, retry_ts FROM {_ALL}
                    WHERE $1::text IS NULL OR queue = $1
                    ORDER BY last_ts DESC, queue, item_key LIMIT $2""",
                queue,
                limit,
            )
        return [FailedItem(*row.values()) for row in rows]

    async def retry(self, *, queue: str | None, key: str | None, act: AdminAction) -> int:
        """Make items due now; returns how many."""
        async with self.database.transaction() as connection:
            noted = await connection.execute(
                f"""UPDATE failed_item SET retry_ts = {NOW_MS}
                    WHERE ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR item_key = $2)""",
                queue,
                key,
            )
            queued = await connection.execute(
                f"""UPDATE object_deletion SET next_attempt_ts = {NOW_MS}
                    WHERE last_error IS NOT NULL AND ($1::text IS NULL OR $1 = 'object_deletions')
                        AND ($2::text IS NULL OR store || ': ' || object_key = $2)""",
                queue,
                key,
            )
            count = sum(int(tag.rpartition(" ")[2]) for tag in (noted, queued))
            await write_entry(connection, act, f"{queue or 'all'} {key or ''}".strip(), count)
        return count
