"""Upload intents, and object keys that no row knows."""

from collections.abc import Sequence
from uuid import UUID

from mediarepo.db.database import NOW_MS, Database
from mediarepo.db.failed_items import is_due
from mediarepo.db.recency import NOT_BEHIND
from mediarepo.model.failed_items import Queue


class UploadIntents:
    """Objects about to be made, multipart uploads under way among them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, store: str, object_key: str, holder: str | None = None) -> None:
        """Write down that an object is about to be made, before S3 hears of it."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO multipart_intent (store, object_key, created_ts, heartbeat_ts, holder)
                    VALUES ($1, $2, {NOW_MS}, {NOW_MS}, $3)""",  # noqa: S608 - static text
                store,
                object_key,
                holder,
            )

    async def beat(self, store: str, object_key: str, upload_id: str) -> bool:
        """Say that the upload is alive; False when the sweep has claimed it."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"""UPDATE multipart_intent SET heartbeat_ts = {NOW_MS}, upload_id = $3
                    WHERE store = $1 AND object_key = $2""",  # noqa: S608 - static text
                store,
                object_key,
                upload_id,
            )
        return bool(tag == "UPDATE 1")

    async def end(self, store: str, object_key: str) -> None:
        """Forget an upload whose abort S3 has confirmed."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", store, object_key
            )

    async def begin_many(self, store: str, object_keys: Sequence[str], holder: str) -> None:
        """Write down objects that `holder` is about to make, one with each of these keys."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO multipart_intent (store, object_key, created_ts, heartbeat_ts, holder)
                    SELECT $1, k, {NOW_MS}, {NOW_MS}, $3 FROM unnest($2::text[]) AS k""",  # noqa: S608 - static text
                store,
                list(object_keys),
                holder,
            )

    async def forget(self, store: str, object_keys: Sequence[str]) -> None:
        """Take announcements back of what was never begun."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM multipart_intent WHERE store = $1 AND object_key = ANY($2::text[])",
                store,
                list(object_keys),
            )

    async def beat_all(self, holder: str) -> None:
        """Say that a holder is alive."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE multipart_intent SET heartbeat_ts = {NOW_MS} WHERE holder = $1",  # noqa: S608 - static text
                holder,
            )

    async def condemn_all(self, holder: str) -> int:
        """Queue what a holder left for deletion; it must be known to be dead, or to be done."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""WITH left_over AS (
                        DELETE FROM multipart_intent WHERE holder = $1 RETURNING store, object_key, upload_id)
                    INSERT INTO object_deletion (store, object_key, upload_id, queued_ts, next_attempt_ts)
                    SELECT store, object_key, upload_id, {NOW_MS}, {NOW_MS} FROM left_over
                    ON CONFLICT DO NOTHING RETURNING deletion_id""",  # noqa: S608 - static text
                holder,
            )
        return len(rows)

    async def stale(self, grace_ms: int, limit: int) -> list[tuple[str, str]]:
        """Name stores and keys of uploads that gave no sign of life for the grace, what was set aside left out."""
        key = "i.store || ': ' || i.object_key"
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT i.store, i.object_key FROM multipart_intent i
                    WHERE i.heartbeat_ts < {NOW_MS} - $1::bigint AND {is_due(Queue.MULTIPART_UPLOADS, key)}
                        AND {NOT_BEHIND}
                    ORDER BY i.heartbeat_ts LIMIT $2""",  # noqa: S608 - static text
                grace_ms,
                limit,
            )
        return [(row["store"], row["object_key"]) for row in rows]

    async def without_id(self, places: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Pick the uploads that may have been begun, and whose id was never written down."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT store, object_key FROM multipart_intent WHERE upload_id IS NULL
                       AND (store, object_key) IN (SELECT * FROM unnest($1::text[], $2::text[]))""",
                [store for store, _ in places],
                [object_key for _, object_key in places],
            )
        return [(row["store"], row["object_key"]) for row in rows]

    async def condemn_stale(self, places: Sequence[tuple[str, str]], grace_ms: int) -> int:
        """Claim uploads that gave no sign of life for the grace, and queue abort and deletion; returns how many."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""WITH stale AS (
                        DELETE FROM multipart_intent WHERE heartbeat_ts < {NOW_MS} - $1::bigint AND {NOT_BEHIND}
                            AND (store, object_key) IN (SELECT * FROM unnest($2::text[], $3::text[]))
                        RETURNING store, object_key, upload_id)
                    INSERT INTO object_deletion (store, object_key, upload_id, queued_ts, next_attempt_ts)
                    SELECT store, object_key, upload_id, {NOW_MS}, {NOW_MS} FROM stale
                    ON CONFLICT DO NOTHING RETURNING deletion_id""",  # noqa: S608 - static text
                grace_ms,
                [store for store, _ in places],
                [object_key for _, object_key in places],
            )
        return len(rows)


class SweepTable:
    """Which of the bucket's keys no row knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def installation_id(self) -> UUID:
        """Read the id that marks the stores as ours."""
        row = await self._database.get("SELECT installation_id FROM schema_meta")
        if row is None:
            raise LookupError("schema_meta has no row")
        installation_id: UUID = row[0]
        return installation_id

    async def now_ms(self) -> int:
        """Read the database's clock, the one that the fences go by."""
        row = await self._database.get(f"SELECT {NOW_MS}")
        return int(row[0]) if row is not None else 0

    async def unknown(self, store: str, object_keys: Sequence[str]) -> list[str]:
        """Pick the keys that no blob, no intent and no queued deletion mentions, as of one instant."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT k FROM unnest($2::text[]) AS k
                   WHERE NOT EXISTS (SELECT FROM blob WHERE store = $1 AND object_key = k)
                       AND NOT EXISTS (SELECT FROM multipart_intent WHERE store = $1 AND object_key = k)
                       AND NOT EXISTS (SELECT FROM object_deletion WHERE store = $1 AND object_key = k)""",
                store,
                list(object_keys),
            )
        return [row["k"] for row in rows]

    async def without_intent(self, store: str, object_keys: Sequence[str]) -> list[str]:
        """Pick the keys of multipart uploads that nobody claims to be working on."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """SELECT k FROM unnest($2::text[]) AS k
                   WHERE NOT EXISTS (SELECT FROM multipart_intent WHERE store = $1 AND object_key = k)""",
                store,
                list(object_keys),
            )
        return [row["k"] for row in rows]

    async def condemn(self, store: str, object_keys: Sequence[str]) -> None:
        """Queue objects for deletion."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"""INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
                    SELECT $1, k, {NOW_MS}, {NOW_MS} FROM unnest($2::text[]) AS k ON CONFLICT DO NOTHING""",  # noqa: S608 - static text
                store,
                list(object_keys),
            )
