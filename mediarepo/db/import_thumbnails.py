"""Thumbnails of another repository, recorded as children of the blobs that they were made of."""

from collections.abc import Mapping, Sequence

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection, Database, Row
from mediarepo.db.import_blobs import queue_deletions
from mediarepo.db.import_commits import check_lease
from mediarepo.db.import_ledger import ledger_name
from mediarepo.model.import_items import TakenThumbnail, ThumbnailEnd
from mediarepo.model.imports import SourceKey
from mediarepo.model.leases import Lease
from mediarepo.model.thumbnails import ThumbnailSpec

_BLOB_OF = """SELECT b.blob_id FROM media m JOIN blob b ON b.blob_id = m.blob_id
    WHERE m.server_name = $2 AND m.media_id = $3 AND m.import_source_id = $1 AND m.state = 'ready'
        AND b.missing_ts IS NULL FOR KEY SHARE OF b"""
_OWN_BLOB = f"""INSERT INTO blob (store, object_key, size_bytes, sha256_state, ownership, parent_blob_id, created_ts)
    VALUES ($1, $2, $3, 'unknown', $4, $5, {NOW_MS}) ON CONFLICT DO NOTHING
    RETURNING blob_id"""  # noqa: S608 - static text
_THUMBNAIL = """INSERT INTO thumbnail
        (source_blob_id, width, height, method, animated, blob_id, byte_offset, size_bytes, content_type)
    VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8) ON CONFLICT DO NOTHING"""


class ImportThumbnails:
    """Says which thumbnails are wanted, and writes those that were taken."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ends(
        self, source_id: int, wanted: Sequence[tuple[SourceKey, ThumbnailSpec]]
    ) -> Mapping[tuple[SourceKey, ThumbnailSpec], ThumbnailEnd | int]:
        """Say of which thumbnails there is nothing to do, and of which blobs the others are."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT w.position, b.blob_id, EXISTS (SELECT FROM thumbnail t
                           WHERE t.source_blob_id = b.blob_id AND t.width = w.width AND t.height = w.height
                               AND t.method = w.method AND t.animated = w.animated) AS is_taken
                   FROM unnest($2::text[], $3::text[], $4::int[], $5::int[], $6::text[], $7::boolean[])
                       WITH ORDINALITY AS w (server_name, media_id, width, height, method, animated, position)
                   LEFT JOIN media m ON m.server_name = w.server_name AND m.media_id = w.media_id
                       AND m.import_source_id = $1 AND m.state = 'ready'
                   LEFT JOIN blob b ON b.blob_id = m.blob_id AND b.missing_ts IS NULL""",
                source_id,
                [ledger_name(key.server_name) for key, _ in wanted],
                [ledger_name(key.media_id) for key, _ in wanted],
                [spec.width for _, spec in wanted],
                [spec.height for _, spec in wanted],
                [str(spec.method) for _, spec in wanted],
                [spec.animated for _, spec in wanted],
            )
        return {wanted[row["position"] - 1]: _end(row) for row in rows}

    async def take(self, source_id: int, taken: Sequence[TakenThumbnail], lease: Lease) -> list[TakenThumbnail]:
        """Record thumbnails; gives those whose objects are something else here already, so that they must be copied.

        An object of ours that turns out not to be needed is queued for deletion.
        """
        async with self._database.transaction() as connection:
            await check_lease(connection, lease)
            ordered = sorted(taken, key=lambda one: (one.key, one.spec))
            return [one for one in ordered if not await self._take(connection, source_id, one)]

    async def _take(self, connection: Connection, source_id: int, one: TakenThumbnail) -> bool:
        content, place = one.content, (one.content.store, one.content.object_key or "")
        if content.intent and not await _claimed(connection, *place):
            return True  # the sweep was quicker; the next run takes it
        source_blob_id = await connection.fetchval(_BLOB_OF, source_id, one.key.server_name, one.key.media_id)
        blob_id = None
        if source_blob_id is not None:
            ownership = "borrowed" if content.borrowed else "owned"
            blob_id = await connection.fetchval(_OWN_BLOB, *place, content.size_bytes, ownership, source_blob_id)
            blob_id = blob_id or await connection.fetchval(
                "SELECT blob_id FROM blob WHERE store = $1 AND object_key = $2 AND parent_blob_id = $3",
                *place,
                source_blob_id,
            )
            if blob_id is None:
                return False
            spec = one.spec
            values = (spec.width, spec.height, spec.method, spec.animated, blob_id, content.size_bytes)
            tag = await connection.execute(_THUMBNAIL, source_blob_id, *values, one.content_type)
            if tag == "INSERT 0 1":
                return True
            await connection.execute(
                "DELETE FROM blob b WHERE blob_id = $1 AND NOT EXISTS (SELECT FROM thumbnail t WHERE t.blob_id = $1)",
                blob_id,
            )
        if content.intent:
            await queue_deletions(connection, [place])
        return True


async def _claimed(connection: Connection, store: str, object_key: str) -> bool:
    tag = await connection.execute(
        "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", store, object_key
    )
    return tag == "DELETE 1"


def _end(row: Row) -> ThumbnailEnd | int:
    if row["blob_id"] is None:
        return ThumbnailEnd.WITHOUT_MEDIA
    return ThumbnailEnd.HERE if row["is_taken"] else int(row["blob_id"])
