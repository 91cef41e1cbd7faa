"""Every object that rows promise, in the order of their keys."""

from collections.abc import AsyncIterator

from mediarepo.db.connections import Database
from mediarepo.model.drift import KnownObject

_PAGE = 1000


class Inventory:
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

    async def get(self, blob_id: int) -> KnownObject | None:
        """Read one again; None when it is gone or known to be missing."""
        row = await self._database.get(
            """SELECT blob_id, object_key, size_bytes, CASE WHEN sha256_state = 'verified' THEN sha256 END AS sha256
               FROM blob WHERE blob_id = $1 AND missing_ts IS NULL""",
            blob_id,
        )
        return None if row is None else KnownObject(row["blob_id"], row["object_key"], row["size_bytes"], row["sha256"])
