"""Imported content to be verified, taken over, or undone."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from mediarepo.db.audit import removal_entries, write_entries
from mediarepo.db.database import NOW_MS, Connection, Database, Row
from mediarepo.db.deletion import delete_all_if_unreferenced, delete_if_unreferenced, delete_thumbnails, lock_media_of
from mediarepo.db.import_blobs import queue_deletions
from mediarepo.db.import_media import forget_marks
from mediarepo.db.media_marks import hide_as_hash, marked_sql
from mediarepo.db.sweep import ACCEPTED_TS
from mediarepo.model.marks import IMPORTED_FROM, AdminAction, MarkKind
from mediarepo.model.media import Blob, Ownership, Sha256State
from mediarepo.model.mxc import Mxc

_PAGE = 500


@dataclass(frozen=True, slots=True)
class ImportedContent:
    """A blob of imported media, and one of these media."""

    blob: Blob
    mxc: Mxc
    remote: bool
    sha256: bytes | None
    sha256_state: Sha256State
    ownership: Ownership


class ImportedContentTable:
    """Iterates over imported content, and changes who owns its objects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_key(self, source_id: int, store: str, ownership: Ownership) -> AsyncIterator[ImportedContent]:
        """Iterate over the objects of one store in the order of their keys."""
        after = ""
        while True:
            rows = await self._page("b.store = $3 AND b.ownership = $4 AND b.object_key > $2", "b.object_key",
                                    source_id, after, store, ownership)  # fmt: skip
            for row in rows:
                yield _content(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1]["object_key"]

    async def by_id(self, source_id: int, ownership: Ownership | None = None) -> AsyncGenerator[ImportedContent, None]:
        """Iterate over all objects in the order of their ids."""
        after = 0
        while True:
            rows = await self._page("b.blob_id > $2 AND ($3::text IS NULL OR b.ownership = $3)", "b.blob_id",
                                    source_id, after, ownership)  # fmt: skip
            for row in rows:
                yield _content(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1]["blob_id"]

    async def lost(self, source_id: int) -> AsyncIterator[Mxc]:
        """Iterate over media whose content is missing, accepted losses excluded."""
        after = ("", "")
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    f"""SELECT m.server_name, m.media_id FROM media m JOIN blob b USING (blob_id)
                        WHERE m.import_source_id = $1 AND (m.server_name, m.media_id) > ($2, $3)
                            AND b.missing_ts > {ACCEPTED_TS} ORDER BY 1, 2 LIMIT {_PAGE}""",
                    source_id,
                    *after,
                )
            for row in rows:
                yield Mxc(row["server_name"], row["media_id"])
            if len(rows) < _PAGE:
                return
            after = (rows[-1]["server_name"], rows[-1]["media_id"])

    async def _page(self, condition: str, order: str, *arguments: object) -> list[Row]:
        async with self._database.connection() as connection:
            return await connection.fetch(
                f"""SELECT b.blob_id, b.store, b.object_key, b.size_bytes, b.sha256, b.sha256_state, b.ownership,
                        m.server_name, m.media_id, m.remote
                    FROM blob b CROSS JOIN LATERAL (SELECT server_name, media_id, remote FROM media
                        WHERE blob_id = b.blob_id AND import_source_id = $1 LIMIT 1) m
                    WHERE b.missing_ts IS NULL AND {condition} ORDER BY {order} LIMIT {_PAGE}""",
                *arguments,
            )

    async def stores(self, source_id: int) -> list[tuple[str, Ownership]]:
        """Return the stores that have contents of a source, and whose objects these are."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT DISTINCT b.store, b.ownership FROM media m JOIN blob b USING (blob_id)
                   WHERE m.import_source_id = $1 ORDER BY 1, 2""",
                source_id,
            )
        return [(row["store"], Ownership(row["ownership"])) for row in rows]

    async def key_range(self, source_id: int, store: str, ownership: Ownership) -> tuple[str, str]:
        """Return the first and last key of a source's objects in a store."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """SELECT min(b.object_key) AS first, max(b.object_key) AS last FROM media m JOIN blob b USING (blob_id)
                   WHERE m.import_source_id = $1 AND b.store = $2 AND b.ownership = $3""",
                source_id,
                store,
                ownership,
            )
        return ("", "") if row is None else (row["first"] or "", row["last"] or "")

    async def note_verified(self, source_id: int, blob_ids: Sequence[int], level: str) -> None:
        """Record that contents are verified."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE import_item i SET verified = $3, verified_ts = {NOW_MS}
                    FROM media m WHERE m.blob_id = ANY($2::bigint[]) AND m.import_source_id = $1
                        AND i.source_id = $1 AND i.server_name = m.server_name AND i.media_id = m.media_id""",
                source_id,
                list(blob_ids),
                level,
            )

    async def note_wrong(self, source_id: int, blob_id: int, state: str, reason: str) -> None:
        """Mark wrong contents missing, so that they are not served, and record it in the ledger."""
        async with self._database.transaction() as connection:
            await lock_media_of(connection, blob_id)
            await connection.execute(
                f"""UPDATE import_item i SET state = $3, reason = $4, updated_ts = {NOW_MS}, fingerprint = ''
                    FROM media m WHERE m.blob_id = $2 AND m.import_source_id = $1
                        AND i.source_id = $1 AND i.server_name = m.server_name AND i.media_id = m.media_id""",
                source_id,
                blob_id,
                state,
                reason,
            )
            await connection.execute(
                f"UPDATE blob SET missing_ts = {NOW_MS} WHERE blob_id = $1 AND missing_ts IS NULL",
                blob_id,
            )
            await connection.execute(
                "UPDATE media SET state = 'missing' WHERE blob_id = $1 AND state = 'ready'", blob_id
            )

    async def own(self, content: ImportedContent, store: str, object_key: str | None, sha256: bytes | None) -> None:
        """Point a blob at our copy of its object, or at the blob we have of equal content already."""
        async with self._database.transaction() as connection:
            await lock_media_of(connection, content.blob.blob_id)
            if object_key is not None:
                claimed = await connection.execute(
                    "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", store, object_key
                )
                if claimed != "DELETE 1":
                    return
            still = await connection.fetchval(
                "SELECT blob_id FROM blob WHERE blob_id = $1 AND ownership = 'borrowed' FOR UPDATE",
                content.blob.blob_id,
            )
            if still is not None:
                await self._own(connection, content.blob.blob_id, store, object_key, sha256)
            elif object_key is not None:
                await queue_deletions(connection, [(store, object_key)])

    @staticmethod
    async def _own(
        connection: Connection, blob_id: int, store: str, object_key: str | None, sha256: bytes | None
    ) -> None:
        twin_id = None
        if sha256 is not None:
            await hide_as_hash(connection, blob_id, sha256)
            twin_id = await connection.fetchval(
                """SELECT blob_id FROM blob WHERE store = $1 AND sha256 = $2 AND ownership = 'owned'
                       AND sha256_state = 'verified' AND missing_ts IS NULL AND parent_blob_id IS NULL
                   FOR KEY SHARE""",
                store,
                sha256,
            )
        if twin_id is not None:
            await connection.execute("UPDATE media SET blob_id = $2 WHERE blob_id = $1", blob_id, twin_id)
            await delete_if_unreferenced(connection, blob_id)
        if object_key is None:
            return
        if twin_id is not None:
            await queue_deletions(connection, [(store, object_key)])
            return
        await delete_thumbnails(connection, blob_id)
        await connection.execute(
            """UPDATE blob SET store = $2, object_key = $3, ownership = 'owned', sha256 = coalesce($4, sha256),
                   sha256_state = CASE WHEN $4::bytea IS NOT NULL THEN 'verified'
                       WHEN sha256 IS NULL THEN 'unknown' ELSE 'claimed' END
               WHERE blob_id = $1""",
            blob_id,
            store,
            object_key,
            sha256,
        )

    async def count_undoable(self, source_id: int, run_id: int | None) -> int:
        """Count the media that an undo of one run, or of all, would remove."""
        row = await self._database.get(
            """SELECT count(*) FROM import_item i JOIN media m USING (server_name, media_id)
               WHERE i.source_id = $1 AND ($2::bigint IS NULL OR i.run_id = $2) AND m.import_source_id = $1
                   AND m.state NOT IN ('tombstone', 'trashed')
                   AND NOT (coalesce(i.mode, '') = 'pending' AND m.state = 'ready')""",
            source_id,
            run_id,
        )
        return 0 if row is None else int(row[0])

    async def undo(self, source_id: int, name: str, run_id: int | None, act: AdminAction) -> int:
        """Undo what a run, or all runs, committed; media deleted, filled or put under a legal hold here are kept."""
        removed = 0
        while True:
            async with self._database.transaction() as connection:
                count, media = await self._undo_some(connection, source_id, run_id)
                await write_entries(connection, act, removal_entries(act, name, media))
            removed += len(media)
            if not count:
                break
        if run_id is None:
            async with self._database.transaction() as connection:
                owners = await connection.fetch(
                    "DELETE FROM quarantined_hash WHERE reason = $1 RETURNING owner", f"{IMPORTED_FROM}{name}"
                )
                await connection.execute("DELETE FROM import_source WHERE source_id = $1", source_id)
                concerned = {row["owner"] for row in owners} & {*act.at}
                await write_entries(connection, act, [(one, name, 0) for one in (None, *sorted(concerned))])
        return removed

    @staticmethod
    async def _undo_some(connection: Connection, source_id: int, run_id: int | None) -> tuple[int, list[Mxc]]:
        rows = await connection.fetch(
            """SELECT server_name, media_id FROM import_item
               WHERE source_id = $1 AND ($2::bigint IS NULL OR run_id = $2)
               ORDER BY server_name, media_id LIMIT $3 FOR UPDATE""",
            source_id,
            run_id,
            _PAGE,
        )
        keys = [row["server_name"] for row in rows], [row["media_id"] for row in rows]
        await connection.execute(
            f"""UPDATE media m SET import_source_id = NULL FROM import_item i
               WHERE i.source_id = $1 AND i.server_name = m.server_name AND i.media_id = m.media_id
                   AND (m.server_name, m.media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))
                   AND m.import_source_id = $1
                   AND (m.state IN ('tombstone', 'trashed') OR (i.mode = 'pending' AND m.state = 'ready')
                       OR {marked_sql(MarkKind.HOLD)})""",
            source_id,
            *keys,
        )
        gone = await connection.fetch(
            """DELETE FROM media WHERE import_source_id = $1
                   AND (server_name, media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))
               RETURNING server_name, media_id, blob_id""",
            source_id,
            *keys,
        )
        await connection.execute(
            """DELETE FROM import_item WHERE source_id = $1
                   AND (server_name, media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))""",
            source_id,
            *keys,
        )
        await forget_marks(connection, source_id, *keys)
        await delete_all_if_unreferenced(connection, [row["blob_id"] for row in gone])
        return len(rows), [Mxc(row["server_name"], row["media_id"]) for row in gone]


def _content(row: Row) -> ImportedContent:
    return ImportedContent(
        Blob(row["blob_id"], row["store"], row["object_key"], row["size_bytes"]),
        Mxc(row["server_name"], row["media_id"]),
        row["remote"],
        row["sha256"],
        Sha256State(row["sha256_state"]),
        Ownership(row["ownership"]),
    )
