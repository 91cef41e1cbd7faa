"""Deletion of media and unreferenced blobs, and the outbox of objects to delete.

Rows are deleted before bytes: the transaction that deletes a row queues its object for deletion.
A blob's row is locked first and checked in a statement of its own, whose snapshot then sees every reference that was
committed before the lock was granted; a publication that comes later finds the row gone and stores the content anew.
Who locks media and their blob locks the media first, in the order of their ids.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mediarepo.db.audit import mxc_entries, write_entries
from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.db.media_marks import held
from mediarepo.db.recency import NOT_BEHIND
from mediarepo.model.marks import AdminAction
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import storable_text

_RETRY_MS = 60_000
_MAX_RETRY_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class QueuedDeletion:
    """An object to delete; with `upload_id`, a multipart upload to abort first."""

    deletion_id: int
    store: str
    object_key: str
    upload_id: str | None


class Outbox:
    """The queue of S3 deletions; any number of processes may work on it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int = 1000, *, leave_out: Collection[str] = ()) -> list[QueuedDeletion]:
        """Claim deletions that are due; those not confirmed become due again later, with exponential back-off.

        An object that a blob refers to is never returned, unless its content is known to be lost; none is while the
        database is older than a bucket. Stores can be excluded.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""UPDATE object_deletion d
                    SET attempts = attempts + 1,
                        next_attempt_ts = {NOW_MS} + least({_RETRY_MS} * (1 << least(attempts, 10)), {_MAX_RETRY_MS})
                    WHERE deletion_id IN (
                        SELECT deletion_id FROM object_deletion q
                        WHERE next_attempt_ts <= {NOW_MS} AND {NOT_BEHIND} AND NOT store = ANY($2::text[])
                            AND NOT EXISTS (SELECT FROM blob b
                                            WHERE b.store = q.store AND b.object_key = q.object_key
                                                AND b.missing_ts IS NULL)
                        ORDER BY next_attempt_ts LIMIT $1 FOR UPDATE SKIP LOCKED)
                    RETURNING deletion_id, store, object_key, upload_id""",
                limit,
                list(leave_out),
            )
        return [QueuedDeletion(*row) for row in rows]

    async def any_due(self) -> bool:
        """Return whether a deletion is due."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(
                f"SELECT EXISTS (SELECT FROM object_deletion WHERE next_attempt_ts <= {NOW_MS})"
            )
        return bool(found)

    async def forget(self, done: Sequence[QueuedDeletion]) -> None:
        """Remove deletions that S3 has confirmed."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM object_deletion WHERE deletion_id = ANY($1::bigint[])",
                [deletion.deletion_id for deletion in done],
            )

    async def note_failure(self, deletion: QueuedDeletion, reason: str) -> None:
        """Record the error of a failed deletion, for the operator."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE object_deletion SET last_error = $2 WHERE deletion_id = $1",
                deletion.deletion_id,
                storable_text(reason, 500),
            )

    async def check(self) -> None:
        """Check that the database answers. Raises DatabaseUnavailableError."""
        await self._database.check()

    async def count(self) -> int:
        """Return how many deletions are queued, those excluded that wait for their grace."""
        row = await self._database.get(
            f"SELECT count(*) FROM object_deletion WHERE attempts > 0 OR next_attempt_ts <= {NOW_MS}"
        )
        return int(row[0]) if row is not None else 0


async def queue_deletion(connection: Connection, store: str, object_key: str) -> None:
    """Queue an object that no row refers to any more; the outbox deletes it in S3 later."""
    await connection.execute(
        f"""INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
            VALUES ($1, $2, {NOW_MS}, {NOW_MS}) ON CONFLICT DO NOTHING""",
        store,
        object_key,
    )


_NEEDED = """SELECT EXISTS (SELECT FROM media WHERE blob_id = $1)
    OR EXISTS (SELECT FROM thumbnail WHERE blob_id = $1 AND source_blob_id <> $1)
    OR EXISTS (SELECT FROM quarantined_blob q JOIN blob b USING (blob_id) WHERE blob_id = $1 AND b.missing_ts IS NULL
        AND b.sha256_state <> 'verified' AND NOT b.claim_checked)"""
"""Hidden content whose hash nobody knows for certain stays until it is learnt: quarantine outlives deletion."""


class DeletionTable:
    """Deletes rows and queues their objects, in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, mxc: Mxc, act: AdminAction | None = None) -> bool:
        """Replace media by a tombstone and drop its blob; False when it is unknown or under a legal hold.

        `act`, if given, is recorded in the same transaction.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                """SELECT blob_id FROM media
                   WHERE server_name = $1 AND media_id = $2 AND state <> 'tombstone' FOR UPDATE""",
                mxc.server_name,
                mxc.media_id,
            )
            if row is None or await held(connection, [mxc]):
                return False
            if act is not None:
                await write_entries(connection, act, mxc_entries(act, [mxc]))
            await connection.execute(
                """UPDATE media SET state = 'tombstone', trashed_ts = NULL, blob_id = NULL, expires_ts = NULL,
                       revision = revision + 1
                   WHERE server_name = $1 AND media_id = $2""",
                mxc.server_name,
                mxc.media_id,
            )
            if row["blob_id"] is not None:
                await delete_if_unreferenced(connection, row["blob_id"])
            return True

    async def delete_packs(self, blob_ids: Sequence[int], act: AdminAction | None = None, target: str = "") -> int:
        """Delete the thumbnails in these packs, and the packs unless media have them as their content.

        `act`, if given, is recorded in the same transaction.
        """
        async with self._database.transaction() as connection:
            concerned = [] if act is None else await _whose_thumbnails(connection, blob_ids, act)
            for blob_id in sorted(blob_ids):
                if await _lock(connection, blob_id):
                    await connection.execute(
                        "DELETE FROM thumbnail WHERE blob_id = $1 AND source_blob_id <> $1", blob_id
                    )
                    await _detach(connection, blob_id)
                    await delete_if_unreferenced(connection, blob_id)
            if act is not None and blob_ids:
                entries = [(name, target, count) for name, count in concerned] or [(None, target, len(blob_ids))]
                await write_entries(connection, act, entries)
        return len(blob_ids)


async def _whose_thumbnails(
    connection: Connection, blob_ids: Sequence[int], act: AdminAction
) -> list[tuple[str | None, int]]:
    """Count for each homeserver the packs with thumbnails of its own media, or of other servers'."""
    rows = await connection.fetch(
        """SELECT n.name, count(DISTINCT t.blob_id) AS packs
           FROM unnest($2::text[]) AS n (name), blob t JOIN media m ON m.blob_id = t.parent_blob_id
           WHERE t.blob_id = ANY($1::bigint[]) AND (m.server_name = n.name OR NOT m.server_name = ANY($2::text[]))
           GROUP BY n.name ORDER BY n.name""",
        list(blob_ids),
        list(act.at),
    )
    return [(row["name"], row["packs"]) for row in rows]


async def lock_media(connection: Connection, server_names: Sequence[str], media_ids: Sequence[str]) -> None:
    """Lock rows of media in their one order, before they are changed in any order, or blobs are locked."""
    await connection.execute(
        """SELECT FROM media WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
           ORDER BY server_name, media_id FOR UPDATE""",
        list(server_names),
        list(media_ids),
    )


async def lock_media_of(connection: Connection, blob_id: int) -> None:
    """Lock all media of a blob, so that the blob may be locked or changed next."""
    await connection.execute("SELECT FROM media WHERE blob_id = $1 ORDER BY server_name, media_id FOR UPDATE", blob_id)


async def delete_if_unreferenced(connection: Connection, blob_id: int) -> None:
    """Delete a blob and its thumbnails, unless media, another blob's thumbnails or its quarantine refer to it.

    Borrowed objects stay in their bucket.
    """
    if not await _lock(connection, blob_id) or await connection.fetchval(_NEEDED, blob_id):
        return
    await delete_thumbnails(connection, blob_id)
    await _delete_blob(connection, blob_id)


async def delete_thumbnails(connection: Connection, source_blob_id: int) -> None:
    """Delete a blob's thumbnails and their packs, unless something else refers to those."""
    rows = await connection.fetch(
        """SELECT blob_id FROM blob WHERE parent_blob_id = $1
           UNION SELECT blob_id FROM thumbnail WHERE source_blob_id = $1 AND blob_id <> $1 ORDER BY 1""",
        source_blob_id,
    )
    await connection.execute("DELETE FROM thumbnail WHERE source_blob_id = $1", source_blob_id)
    for row in rows:
        if await _lock(connection, row["blob_id"]):
            await _detach(connection, row["blob_id"])
            await delete_if_unreferenced(connection, row["blob_id"])


async def _lock(connection: Connection, blob_id: int) -> bool:
    found = await connection.fetchval("SELECT blob_id FROM blob WHERE blob_id = $1 FOR UPDATE", blob_id)
    return found is not None


async def _detach(connection: Connection, blob_id: int) -> None:
    """Make a blob the child of another source that has thumbnails in it, or nobody's.

    As nobody's it counts as content; the second copy of content that we own is not what uploads refer to.
    """
    await connection.execute(
        """UPDATE blob b SET
               parent_blob_id = (SELECT min(source_blob_id) FROM thumbnail t
                   WHERE t.blob_id = b.blob_id AND t.source_blob_id <> b.blob_id),
               sha256_state = CASE WHEN b.sha256_state = 'verified' AND EXISTS (
                       SELECT FROM blob o WHERE o.store = b.store AND o.sha256 = b.sha256 AND o.blob_id <> b.blob_id)
                   THEN 'claimed' ELSE b.sha256_state END,
               claim_checked = b.claim_checked OR b.sha256_state = 'verified'
           WHERE blob_id = $1 AND parent_blob_id IS NOT NULL""",
        blob_id,
    )


async def delete_all_if_unreferenced(connection: Connection, blob_ids: Sequence[int | None]) -> None:
    """Delete unreferenced blobs in the order of their ids, which avoids deadlocks."""
    for blob_id in sorted({blob_id for blob_id in blob_ids if blob_id is not None}):
        await delete_if_unreferenced(connection, blob_id)


async def _delete_blob(connection: Connection, blob_id: int) -> None:
    row = await connection.fetchrow(
        "DELETE FROM blob WHERE blob_id = $1 RETURNING store, object_key, ownership", blob_id
    )
    if row is not None and row["ownership"] == "owned":
        await queue_deletion(connection, row["store"], row["object_key"])
