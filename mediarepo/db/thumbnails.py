"""Rows of thumbnails, and of content that has none."""

from collections.abc import Sequence

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection, Database
from mediarepo.db.outbox import queue_deletion
from mediarepo.db.publishing import claim_key, insert_blob
from mediarepo.model.media import Blob, NewObject
from mediarepo.model.thumbnails import RenderedThumbnail

_INSERT = """
INSERT INTO thumbnail (source_blob_id, width, height, method, animated, blob_id, byte_offset, size_bytes, content_type)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
"""
_MOMENTARY_FAILURES = 3
_DAY_MS = 86_400_000
_NOTE_FAILURE = f"""
INSERT INTO thumbnail_failure AS f (source_blob_id, animated, reason, created_ts, retry_ts)
(SELECT blob_id, $2, $3, {NOW_MS}, CASE WHEN $4 THEN {NOW_MS} END FROM blob WHERE blob_id = $1 FOR KEY SHARE)
ON CONFLICT (source_blob_id, animated) DO UPDATE
SET reason = EXCLUDED.reason, attempts = f.attempts + 1,
    retry_ts = EXCLUDED.retry_ts + CASE WHEN f.attempts + 1 < {_MOMENTARY_FAILURES} THEN 0 ELSE {_DAY_MS} END
WHERE f.retry_ts IS NOT NULL
RETURNING coalesce(retry_ts > {NOW_MS}, true)
"""  # noqa: S608 - static text


class ThumbnailTable:
    """Writes what a render job made."""

    def __init__(self, database: Database, grace_ms: int) -> None:
        self._database = database
        self._grace_ms = grace_ms

    async def store(self, source: Blob, made: Sequence[RenderedThumbnail], pack: NewObject | None) -> bool:
        """Record a job's thumbnails; False when the source is gone. A pack that came second is queued for deletion.

        `pack` is None when the source's own bytes serve for all of them.
        """
        async with self._database.transaction() as connection:
            if pack is not None:
                await claim_key(connection, pack, self._grace_ms)
            kept = await connection.fetchval(
                "SELECT blob_id FROM blob WHERE blob_id = $1 FOR KEY SHARE", source.blob_id
            )
            if kept is None:
                if pack is not None:
                    await queue_deletion(connection, pack.store, pack.object_key)
                return False
            await self._insert(connection, source, made, pack)
            return True

    async def _insert(
        self, connection: Connection, source: Blob, made: Sequence[RenderedThumbnail], pack: NewObject | None
    ) -> None:
        pack_id = None if pack is None else await insert_blob(connection, pack, parent_blob_id=source.blob_id)
        await connection.execute(
            "DELETE FROM thumbnail_failure WHERE source_blob_id = $1 AND retry_ts IS NOT NULL", source.blob_id
        )
        new = 0
        for one in sorted(made, key=lambda thumbnail: thumbnail.spec):
            blob_id = source.blob_id if one.own_bytes else pack_id
            size_bytes = source.size_bytes if one.own_bytes else one.size_bytes
            spec = one.spec
            place = (source.blob_id, spec.width, spec.height, spec.method, spec.animated)
            tag = await connection.execute(_INSERT, *place, blob_id, one.offset, size_bytes, one.content_type)
            new += tag == "INSERT 0 1" and not one.own_bytes
        if pack is not None and not new:
            await connection.execute("DELETE FROM blob WHERE blob_id = $1", pack_id)
            await queue_deletion(connection, pack.store, pack.object_key)

    async def note_failure(self, source: Blob, reason: str, *, animated: bool, momentary: bool) -> bool:
        """Remember that content cannot be thumbnailed; False when it may be tried again at once.

        A momentary failure is remembered when it is the third, and then for a day.
        """
        async with self._database.connection() as connection:
            remembered = await connection.fetchval(_NOTE_FAILURE, source.blob_id, animated, reason, momentary)
        return remembered is not False

    async def count(self, source: Blob) -> int:
        """Count the thumbnails kept of one source."""
        row = await self._database.get("SELECT count(*) FROM thumbnail WHERE source_blob_id = $1", source.blob_id)
        return int(row[0]) if row is not None else 0
