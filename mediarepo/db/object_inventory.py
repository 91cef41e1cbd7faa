"""Every object that rows refer to, and blobs whose objects are missing."""

from collections.abc import AsyncIterator

from mediarepo.db.audit import write_entry
from mediarepo.db.database import Connection, Database
from mediarepo.db.deletion import delete_if_unreferenced, lock_media_of
from mediarepo.model.drift import KnownObject
from mediarepo.model.marks import AdminAction
from mediarepo.model.media import Ownership

_PAGE = 1000
ACCEPT_LOSSES = "accept_losses"
ACCEPTED_TS = f"""coalesce((SELECT max(created_ts) FROM audit_log
    WHERE target = 'store ' || b.store AND action = '{ACCEPT_LOSSES}'), 0)"""  # noqa: S608 - static text
"""When somebody last accepted losses of a blob's store."""
_LOST = f"""FROM blob b WHERE store = $1 AND EXISTS (SELECT FROM media WHERE media.blob_id = b.blob_id)
    AND missing_ts > {ACCEPTED_TS}"""


class ObjectInventory:
    """Walks through rows in pages, so that neither memory nor a transaction grows with their number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, store: str) -> int:
        """Count a store's objects, as rows have it."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM blob WHERE store = $1", store))

    async def known(self, store: str, after_key: str) -> AsyncIterator[KnownObject]:
        """Walk through a store's own objects that are not known to be missing, from behind a key on."""
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    """SELECT blob_id, object_key, size_bytes,
                           CASE WHEN sha256_state = 'verified' THEN sha256 END AS sha256
                       FROM blob WHERE store = $1 AND ownership = 'owned' AND missing_ts IS NULL AND object_key > $2
                       ORDER BY object_key LIMIT $3""",
                    store,
                    after_key,
                    _PAGE,
                )
            for row in rows:
                yield KnownObject(row["blob_id"], row["object_key"], row["size_bytes"], row["sha256"])
            if len(rows) < _PAGE:
                return
            after_key = rows[-1]["object_key"]

    async def borrowed(self, store: str, batch: int) -> AsyncIterator[list[KnownObject]]:
        """Walk through a store's adopted objects that are not known to be missing, so many at a time."""
        after_key = ""
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    """SELECT blob_id, object_key, size_bytes,
                           CASE WHEN sha256_state = 'verified' THEN sha256 END AS sha256
                       FROM blob WHERE store = $1 AND ownership = 'borrowed' AND missing_ts IS NULL AND object_key > $2
                       ORDER BY object_key LIMIT $3""",
                    store,
                    after_key,
                    _PAGE,
                )
            for start in range(0, len(rows), batch):
                yield [KnownObject(*row.values()) for row in rows[start : start + batch]]
            if len(rows) < _PAGE:
                return
            after_key = rows[-1]["object_key"]

    async def lost(self, store: str) -> AsyncIterator[KnownObject]:
        """Walk through what media refer to and is known to be missing, accepted losses aside."""
        after_id = 0
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    f"SELECT blob_id, object_key, size_bytes {_LOST} AND blob_id > $2 ORDER BY blob_id LIMIT $3",
                    store,
                    after_id,
                    _PAGE,
                )
            for row in rows:
                yield KnownObject(row["blob_id"], row["object_key"], row["size_bytes"])
            if len(rows) < _PAGE:
                return
            after_id = rows[-1]["blob_id"]

    async def accept_losses(self, store: str, act: AdminAction) -> int:
        """Write into the audit that a store's losses are accepted; it is what tells them from later ones."""
        async with self._database.transaction() as connection:
            count: int = await connection.fetchval(f"SELECT count(*) {_LOST}", store)
            if count:
                await write_entry(connection, act, f"store {store}", count)
        return count

    async def get(self, blob_id: int) -> KnownObject | None:
        """Read one again; None when it is gone or known to be missing."""
        row = await self._database.get(
            """SELECT blob_id, object_key, size_bytes, CASE WHEN sha256_state = 'verified' THEN sha256 END AS sha256
               FROM blob WHERE blob_id = $1 AND missing_ts IS NULL""",
            blob_id,
        )
        return None if row is None else KnownObject(row["blob_id"], row["object_key"], row["size_bytes"], row["sha256"])


class MissingObjects:
    """Reads which objects should be there, and takes back that some were not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def oldest(self, store: str, limit: int, ownership: Ownership = Ownership.OWNED) -> list[KnownObject]:
        """Read the objects that a store has held for longest, those known to be missing aside."""
        return await self._read(
            """SELECT blob_id, object_key, size_bytes FROM blob
               WHERE store = $1 AND ownership = $3 AND missing_ts IS NULL ORDER BY blob_id LIMIT $2""",
            store,
            limit,
            ownership,
        )

    async def missing(self, store: str, after_id: int, limit: int) -> list[KnownObject]:
        """Read missing objects in the order of their ids; damaged ones that wait for their removal are none of them."""
        return await self._read(
            """SELECT blob_id, object_key, size_bytes FROM blob b
               WHERE store = $1 AND missing_ts IS NOT NULL AND blob_id > $3 AND NOT EXISTS (
                   SELECT FROM object_deletion q WHERE q.store = b.store AND q.object_key = b.object_key)
               ORDER BY blob_id LIMIT $2""",
            store,
            limit,
            after_id,
        )

    async def _read(self, query: str, *arguments: object) -> list[KnownObject]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, *arguments)
        return [KnownObject(row["blob_id"], row["object_key"], row["size_bytes"]) for row in rows]

    async def found_again(self, blob_id: int) -> None:
        """Give the media of a blob that was missing their content back.

        If the same content was stored anew meanwhile, they refer to that, and the old object goes.
        """
        async with self._database.transaction() as connection:
            await lock_media_of(connection, blob_id)
            twin_id = await self._twin(connection, blob_id)
            if twin_id is None:
                await connection.execute("UPDATE blob SET missing_ts = NULL WHERE blob_id = $1", blob_id)
            await connection.execute(
                "UPDATE media SET state = 'ready', blob_id = $2 WHERE blob_id = $1 AND state IN ('missing', 'ready')",
                blob_id,
                blob_id if twin_id is None else twin_id,
            )
            if twin_id is not None:
                await delete_if_unreferenced(connection, blob_id)

    @staticmethod
    async def _twin(connection: Connection, blob_id: int) -> int | None:
        twin_id: int | None = await connection.fetchval(
            """SELECT twin.blob_id FROM blob JOIN blob twin USING (store, sha256)
               WHERE blob.blob_id = $1 AND twin.blob_id <> $1 AND twin.ownership = 'owned'
                   AND twin.sha256_state = 'verified' AND twin.missing_ts IS NULL AND twin.parent_blob_id IS NULL
                   AND blob.parent_blob_id IS NULL
               FOR KEY SHARE OF twin""",
            blob_id,
        )
        return twin_id
