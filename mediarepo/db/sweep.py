"""Upload intents, object keys that no row knows, and every object that rows refer to."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from mediarepo.db.audit import write_entry
from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.db.deletion import delete_if_unreferenced, lock_media_of
from mediarepo.db.failed_items import is_due
from mediarepo.db.recency import NOT_BEHIND
from mediarepo.model.drift import KnownObject
from mediarepo.model.marks import AdminAction
from mediarepo.model.media import Ownership
from mediarepo.model.tasks import Queue

_PAGE = 1000
ACCEPT_LOSSES = "accept_losses"
ACCEPTED_TS = f"""coalesce((SELECT max(created_ts) FROM audit_log
    WHERE target = 'store ' || b.store AND action = '{ACCEPT_LOSSES}'), 0)"""
"""When somebody last accepted losses of a blob's store."""
_LOST = f"""FROM blob b WHERE store = $1 AND EXISTS (SELECT FROM media WHERE media.blob_id = b.blob_id)
    AND missing_ts > {ACCEPTED_TS}"""


class ObjectInventory:
    """Iterates over the objects that rows refer to, in pages, so that neither memory nor a transaction grows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, store: str) -> int:
        """Count a store's objects."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM blob WHERE store = $1", store))

    async def known(self, store: str, after_key: str) -> AsyncIterator[KnownObject]:
        """Iterate over a store's own objects after a key, those known to be missing excluded."""
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
        """Iterate over a store's adopted objects in pages, those known to be missing excluded."""
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
        """Iterate over objects known to be missing that media refer to, accepted losses excluded."""
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
        """Record in the audit that a store's losses are accepted; later losses are told apart by it."""
        async with self._database.transaction() as connection:
            count: int = await connection.fetchval(f"SELECT count(*) {_LOST}", store)
            if count:
                await write_entry(connection, act, f"store {store}", count)
        return count

    async def get(self, blob_id: int) -> KnownObject | None:
        """Read one object again; None when it is deleted or known to be missing."""
        row = await self._database.get(
            """SELECT blob_id, object_key, size_bytes, CASE WHEN sha256_state = 'verified' THEN sha256 END AS sha256
               FROM blob WHERE blob_id = $1 AND missing_ts IS NULL""",
            blob_id,
        )
        return None if row is None else KnownObject(row["blob_id"], row["object_key"], row["size_bytes"], row["sha256"])


class MissingObjects:
    """Finds missing objects, and restores those that exist again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def oldest(self, store: str, limit: int, ownership: Ownership = Ownership.OWNED) -> list[KnownObject]:
        """Return the oldest objects of a store, those known to be missing excluded."""
        return await self._read(
            """SELECT blob_id, object_key, size_bytes FROM blob
               WHERE store = $1 AND ownership = $3 AND missing_ts IS NULL ORDER BY blob_id LIMIT $2""",
            store,
            limit,
            ownership,
        )

    async def missing(self, store: str, after_id: int, limit: int) -> list[KnownObject]:
        """Return missing objects in the order of their ids; damaged ones that wait for deletion are excluded."""
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
        """Restore the media of a blob whose object exists again.

        If the same content was stored anew meanwhile, they refer to that, and the old object is deleted.
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


class UploadIntents:
    """Objects about to be created, with multipart uploads in progress."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, store: str, object_key: str, holder: str | None = None) -> None:
        """Record that an object is about to be created, before any request to S3."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO multipart_intent (store, object_key, created_ts, heartbeat_ts, holder)
                    VALUES ($1, $2, {NOW_MS}, {NOW_MS}, $3)""",
                store,
                object_key,
                holder,
            )

    async def beat(self, store: str, object_key: str, upload_id: str) -> bool:
        """Renew an intent; False when garbage collection has claimed it."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"""UPDATE multipart_intent SET heartbeat_ts = {NOW_MS}, upload_id = $3
                    WHERE store = $1 AND object_key = $2""",
                store,
                object_key,
                upload_id,
            )
        return bool(tag == "UPDATE 1")

    async def end(self, store: str, object_key: str) -> None:
        """Remove an intent whose abort S3 has confirmed."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", store, object_key
            )

    async def begin_many(self, store: str, object_keys: Sequence[str], holder: str) -> None:
        """Record objects with these keys that `holder` is about to create."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO multipart_intent (store, object_key, created_ts, heartbeat_ts, holder)
                    SELECT $1, k, {NOW_MS}, {NOW_MS}, $3 FROM unnest($2::text[]) AS k""",
                store,
                list(object_keys),
                holder,
            )

    async def forget(self, store: str, object_keys: Sequence[str]) -> None:
        """Remove intents that were never used."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM multipart_intent WHERE store = $1 AND object_key = ANY($2::text[])",
                store,
                list(object_keys),
            )

    async def renew_all(self, holder: str) -> None:
        """Renew all intents of a holder."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE multipart_intent SET heartbeat_ts = {NOW_MS} WHERE holder = $1",
                holder,
            )

    async def condemn_all(self, holder: str) -> int:
        """Queue all of a holder's leftovers for deletion; it must be dead or done."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""WITH left_over AS (
                        DELETE FROM multipart_intent WHERE holder = $1 RETURNING store, object_key, upload_id)
                    INSERT INTO object_deletion (store, object_key, upload_id, queued_ts, next_attempt_ts)
                    SELECT store, object_key, upload_id, {NOW_MS}, {NOW_MS} FROM left_over
                    ON CONFLICT DO NOTHING RETURNING deletion_id""",
                holder,
            )
        return len(rows)

    async def stale(self, grace_ms: int, limit: int) -> list[tuple[str, str]]:
        """Return stores and keys of intents not renewed within the grace period, failed items excluded."""
        key = "i.store || ': ' || i.object_key"
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT i.store, i.object_key FROM multipart_intent i
                    WHERE i.heartbeat_ts < {NOW_MS} - $1::bigint AND {is_due(Queue.MULTIPART_UPLOADS, key)}
                        AND {NOT_BEHIND}
                    ORDER BY i.heartbeat_ts LIMIT $2""",
                grace_ms,
                limit,
            )
        return [(row["store"], row["object_key"]) for row in rows]

    async def without_id(self, places: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the multipart uploads whose id was never recorded."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT store, object_key FROM multipart_intent WHERE upload_id IS NULL
                       AND (store, object_key) IN (SELECT * FROM unnest($1::text[], $2::text[]))""",
                [store for store, _ in places],
                [object_key for _, object_key in places],
            )
        return [(row["store"], row["object_key"]) for row in rows]

    async def condemn_stale(self, places: Sequence[tuple[str, str]], grace_ms: int) -> int:
        """Claim intents not renewed within the grace period, and queue abort and deletion; returns how many."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""WITH stale AS (
                        DELETE FROM multipart_intent WHERE heartbeat_ts < {NOW_MS} - $1::bigint AND {NOT_BEHIND}
                            AND (store, object_key) IN (SELECT * FROM unnest($2::text[], $3::text[]))
                        RETURNING store, object_key, upload_id)
                    INSERT INTO object_deletion (store, object_key, upload_id, queued_ts, next_attempt_ts)
                    SELECT store, object_key, upload_id, {NOW_MS}, {NOW_MS} FROM stale
                    ON CONFLICT DO NOTHING RETURNING deletion_id""",
                grace_ms,
                [store for store, _ in places],
                [object_key for _, object_key in places],
            )
        return len(rows)


class SweepTable:
    """Finds the bucket's keys that no row knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def installation_id(self) -> UUID:
        """Return the id that marks the stores as ours. Raises LookupError when schema_meta is empty."""
        row = await self._database.get("SELECT installation_id FROM schema_meta")
        if row is None:
            raise LookupError("schema_meta has no row")
        installation_id: UUID = row[0]
        return installation_id

    async def now_ms(self) -> int:
        """Return the database's clock, in ms since 1970; grace periods are measured by it."""
        row = await self._database.get(f"SELECT {NOW_MS}")
        return int(row[0]) if row is not None else 0

    async def unknown(self, store: str, object_keys: Sequence[str]) -> list[str]:
        """Return the keys that no blob, intent or queued deletion mentions, in one snapshot."""
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
        """Return the keys of multipart uploads without an intent."""
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
                    SELECT $1, k, {NOW_MS}, {NOW_MS} FROM unnest($2::text[]) AS k ON CONFLICT DO NOTHING""",
                store,
                list(object_keys),
            )
