"""The moment at which stored bytes become media.

The bytes exist before; here one transaction writes the rows. The loser of a race for equal content refers to the
winner's blob and queues its own object for deletion in that same transaction, so nothing is lost and nothing leaks.
"""

from collections.abc import Awaitable, Callable

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection, Database
from mediarepo.db.errors import StaleKeyError
from mediarepo.db.outbox import queue_deletion
from mediarepo.db.recording import lock_known, record
from mediarepo.model.media import NewMedia, NewObject

_ATTEMPTS = 10


async def _go_on() -> None:
    """Stand where a test may hold a publication between finding a blob and referring to it."""


class Publishing:
    """Writes blob and media rows; `grace_ms` is the sweep's, half of which is a key's life before its row."""

    def __init__(self, database: Database, grace_ms: int, *, on_lock: Callable[[], Awaitable[None]] = _go_on) -> None:
        self._database = database
        self._grace_ms = grace_ms
        self._on_lock = on_lock

    async def link(self, media: NewMedia, *, store: str, sha256: bytes) -> bool:
        """Make media of content that `store` holds already; False when it holds none such."""
        async with self._database.transaction() as connection:
            await lock_known(connection, media)
            blob_id = await self._lock_blob(connection, store, sha256)
            if blob_id is None:
                return False
            await record(connection, media, blob_id)
            return True

    async def publish(self, media: NewMedia, stored: NewObject) -> None:
        """Make media of an object just stored, or refer to equal content that was stored meanwhile."""
        async with self._database.transaction() as connection:
            await lock_known(connection, media)
            await claim_key(connection, stored, self._grace_ms)
            blob_id = await self._own_or_join(connection, stored)
            await record(connection, media, blob_id)

    async def _own_or_join(self, connection: Connection, stored: NewObject) -> int:
        for _ in range(_ATTEMPTS):
            own_id = await insert_blob(connection, stored, parent_blob_id=None)
            if own_id is not None:
                return own_id
            if stored.sha256 is None:
                break
            winner_id = await self._lock_blob(connection, stored.store, stored.sha256)
            if winner_id is not None:
                await queue_deletion(connection, stored.store, stored.object_key)
                return winner_id
        raise StaleKeyError("the upload could not be recorded; try again", retry_after_s=1)

    async def _lock_blob(self, connection: Connection, store: str, sha256: bytes) -> int | None:
        blob_id: int | None = await connection.fetchval(
            """SELECT blob_id FROM blob
               WHERE store = $1 AND sha256 = $2 AND ownership = 'owned' AND sha256_state = 'verified'
                   AND missing_ts IS NULL AND parent_blob_id IS NULL
               FOR KEY SHARE""",
            store,
            sha256,
        )
        if blob_id is not None:
            await self._on_lock()
        return blob_id


async def claim_key(connection: Connection, stored: NewObject, grace_ms: int) -> None:
    """Make sure that no sweep can have condemned the object: its intent is still ours, or its key is young."""
    if stored.multipart:
        tag = await connection.execute(
            "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", stored.store, stored.object_key
        )
        if tag != "DELETE 1":
            raise StaleKeyError("the upload took too long and was given up; try again", retry_after_s=1)
        return
    age_ms = await connection.fetchval(f"SELECT {NOW_MS} - $1::bigint", stored.key_ts)
    if age_ms > grace_ms // 2:
        raise StaleKeyError("the upload took too long to record; try again", retry_after_s=1)


async def insert_blob(connection: Connection, stored: NewObject, *, parent_blob_id: int | None) -> int | None:
    """Record an object as a blob of our own; None when equal content has one already."""
    blob_id: int | None = await connection.fetchval(
        f"""INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, parent_blob_id, created_ts)
            VALUES ($1, $2, $3, $4, CASE WHEN $4::bytea IS NULL THEN 'unknown' ELSE 'verified' END, $5, {NOW_MS})
            ON CONFLICT (store, sha256)
                WHERE ownership = 'owned' AND sha256_state = 'verified' AND missing_ts IS NULL
                    AND parent_blob_id IS NULL
                DO NOTHING
            RETURNING blob_id""",  # noqa: S608 - static text
        stored.store,
        stored.object_key,
        stored.size_bytes,
        stored.sha256,
        parent_blob_id,
    )
    return blob_id
