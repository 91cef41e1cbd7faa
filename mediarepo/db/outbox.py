"""Objects that wait for their deletion: claimed for a while, removed from S3, then forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection, Database
from mediarepo.model.failed_items import storable_text

_RETRY_MS = 60_000
_MAX_RETRY_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class QueuedDeletion:
    """An object to remove; `upload_id` is set when a multipart upload must be aborted first."""

    deletion_id: int
    store: str
    object_key: str
    upload_id: str | None


class Outbox:
    """The queue of deletions; any number of processes may work on it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int = 1000) -> list[QueuedDeletion]:
        """Take deletions that are due; those not forgotten come back later, ever more rarely.

        An object that some blob refers to is never handed out, whatever put it into the queue, unless its content is
        known to be lost.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""UPDATE object_deletion d
                    SET attempts = attempts + 1,
                        next_attempt_ts = {NOW_MS} + least({_RETRY_MS} * (1 << least(attempts, 10)), {_MAX_RETRY_MS})
                    WHERE deletion_id IN (
                        SELECT deletion_id FROM object_deletion q
                        WHERE next_attempt_ts <= {NOW_MS}
                            AND NOT EXISTS (SELECT FROM blob b
                                            WHERE b.store = q.store AND b.object_key = q.object_key
                                                AND b.missing_ts IS NULL)
                        ORDER BY next_attempt_ts LIMIT $1 FOR UPDATE SKIP LOCKED)
                    RETURNING deletion_id, store, object_key, upload_id""",  # noqa: S608 - static text
                limit,
            )
        return [QueuedDeletion(*row) for row in rows]

    async def forget(self, done: Sequence[QueuedDeletion]) -> None:
        """Drop deletions that S3 has confirmed."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM object_deletion WHERE deletion_id = ANY($1::bigint[])",
                [deletion.deletion_id for deletion in done],
            )

    async def note_failure(self, deletion: QueuedDeletion, reason: str) -> None:
        """Keep why a deletion did not succeed, for the operator."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE object_deletion SET last_error = $2 WHERE deletion_id = $1",
                deletion.deletion_id,
                storable_text(reason, 500),
            )

    async def check(self) -> None:
        """Make sure that the database answers, else DatabaseUnavailableError."""
        await self._database.check()

    async def count(self) -> int:
        """Count what still waits."""
        row = await self._database.get("SELECT count(*) FROM object_deletion")
        return int(row[0]) if row is not None else 0


async def queue_deletion(connection: Connection, store: str, object_key: str) -> None:
    """Queue an object that no row refers to any more; S3 is asked later, by the outbox."""
    await connection.execute(
        f"""INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
            VALUES ($1, $2, {NOW_MS}, {NOW_MS}) ON CONFLICT DO NOTHING""",  # noqa: S608 - static text
        store,
        object_key,
    )
