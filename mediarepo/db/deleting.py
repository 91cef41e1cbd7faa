"""Rows go before bytes: media, and blobs that nothing refers to any more.

A blob's row is locked first and judged in a statement of its own, whose snapshot then sees every reference that was
committed before the lock was granted; a publication that comes later finds the row gone and stores the content anew.
Who locks media and their blob locks the media first, in the order of their ids.
"""

from collections.abc import Sequence

from mediarepo.db.connections import Connection, Database
from mediarepo.db.outbox import queue_deletion
from mediarepo.model.mxc import Mxc


class Deleting:
    """Removes rows and queues their objects, in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, mxc: Mxc) -> bool:
        """Leave a tombstone of media and let go of its blob; False when there was no such media."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                """SELECT blob_id FROM media
                   WHERE server_name = $1 AND media_id = $2 AND state <> 'tombstone' FOR UPDATE""",
                mxc.server_name,
                mxc.media_id,
            )
            if row is None:
                return False
            await connection.execute(
                """UPDATE media SET state = 'tombstone', blob_id = NULL, expires_ts = NULL, revision = revision + 1
                   WHERE server_name = $1 AND media_id = $2""",
                mxc.server_name,
                mxc.media_id,
            )
            if row["blob_id"] is not None:
                await let_go(connection, row["blob_id"])
            return True

    async def delete_pack(self, blob_id: int) -> None:
        """Forget a thumbnail pack; its thumbnails' rows go with it."""
        async with self._database.transaction() as connection:
            await _delete_blob(connection, blob_id)


async def lock_media_of(connection: Connection, blob_id: int) -> None:
    """Lock all media of a blob, so that the blob itself may be locked or changed next."""
    await connection.execute("SELECT FROM media WHERE blob_id = $1 ORDER BY server_name, media_id FOR UPDATE", blob_id)


async def let_go(connection: Connection, blob_id: int) -> None:
    """Delete a blob and its thumbnails if no media refers to it; a borrowed blob's object is left alone."""
    if await connection.fetchval("SELECT blob_id FROM blob WHERE blob_id = $1 FOR UPDATE", blob_id) is None:
        return
    if await connection.fetchval("SELECT EXISTS (SELECT FROM media WHERE blob_id = $1)", blob_id):
        return
    for child in await connection.fetch("SELECT blob_id FROM blob WHERE parent_blob_id = $1 FOR UPDATE", blob_id):
        await _delete_blob(connection, child["blob_id"])
    await _delete_blob(connection, blob_id)


async def let_all_go(connection: Connection, blob_ids: Sequence[int | None]) -> None:
    """Let go of blobs in the order of their ids, so that two who do so never wait for each other."""
    for blob_id in sorted({blob_id for blob_id in blob_ids if blob_id is not None}):
        await let_go(connection, blob_id)


async def _delete_blob(connection: Connection, blob_id: int) -> None:
    row = await connection.fetchrow(
        "DELETE FROM blob WHERE blob_id = $1 RETURNING store, object_key, ownership", blob_id
    )
    if row is not None and row["ownership"] == "owned":
        await queue_deletion(connection, row["store"], row["object_key"])
