"""Rows of media and thumbnails as downloads read them, and last-access times."""

from collections.abc import Mapping, Sequence

from mediarepo.db.database import NOW_MS, Connection, Database, Row
from mediarepo.db.deletion import lock_media_of, queue_deletion
from mediarepo.db.media_marks import hash_unverified_sql, hidden_sql
from mediarepo.db.publishing import claim_key, insert_blob
from mediarepo.model.declared import content_type_or_default
from mediarepo.model.media import (
    Blob,
    FoundMedia,
    Media,
    MediaState,
    NewObject,
    PictureFacts,
    RenderedThumbnail,
    Thumbnail,
    ThumbnailSpec,
)
from mediarepo.model.mxc import Mxc

_VIEWER = "$3::text"
_MEDIA = f"""
    CASE WHEN m.state = 'pending' AND m.expires_ts < {NOW_MS} THEN 'tombstone' ELSE m.state END AS state,
    m.remote, m.content_type, m.upload_name, m.created_ts, m.revision, m.authenticated, m.import_source_id,
    b.blob_id, b.store, b.object_key, b.size_bytes, b.missing_ts,
    {hidden_sql(_VIEWER, media="k")} AS hidden, {hash_unverified_sql(_VIEWER, media="k")} AS hash_unverified
"""
_NAMED = """FROM (SELECT $1::text AS server_name, $2::text AS media_id) k
    LEFT JOIN media m ON m.server_name = k.server_name AND m.media_id = k.media_id
    LEFT JOIN blob b ON b.blob_id = m.blob_id"""
"""One row in any case, so that media are known to be hidden before they are known themselves."""

_FIND = f"SELECT {_MEDIA} {_NAMED}"

_FIND_WITH_THUMBNAIL = f"""
SELECT {_MEDIA},
    t.byte_offset, t.size_bytes AS thumbnail_bytes, t.content_type AS thumbnail_type,
    p.blob_id AS pack_id, p.store AS pack_store, p.object_key AS pack_key, p.size_bytes AS pack_bytes,
    f.reason AS failure
{_NAMED}
    LEFT JOIN thumbnail t ON t.source_blob_id = m.blob_id
        AND t.width = $4 AND t.height = $5 AND t.method = $6 AND t.animated = $7
    LEFT JOIN blob p ON p.blob_id = t.blob_id AND p.missing_ts IS NULL
    LEFT JOIN thumbnail_failure f ON f.source_blob_id = m.blob_id AND f.animated = $7
        AND (f.retry_ts IS NULL OR f.retry_ts > {NOW_MS})
"""


class MediaTable:
    """Reads media in one query each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, mxc: Mxc, viewer: str) -> Media | None:
        """Read media by its identity, as the users of a homeserver see it (OPERATOR: as everybody does).

        What is hidden before it is known looks like a tombstone.
        """
        row = await self._database.get(_FIND, mxc.server_name, mxc.media_id, viewer)
        return None if row is None else _media(mxc, row)

    async def find(self, mxc: Mxc, viewer: str, spec: ThumbnailSpec | None = None) -> FoundMedia | None:
        """Read media as `get` does, with one of its thumbnails if `spec` says which."""
        if spec is None:
            media = await self.get(mxc, viewer)
            return None if media is None else FoundMedia(media)
        row = await self._database.get(
            _FIND_WITH_THUMBNAIL,
            mxc.server_name,
            mxc.media_id,
            viewer,
            spec.width,
            spec.height,
            spec.method,
            spec.animated,
        )
        media = None if row is None else _media(mxc, row)
        if row is None or media is None:
            return None
        return FoundMedia(media, _thumbnail(spec, row), row["failure"])

    async def mark_missing(self, blob: Blob, *, remove_object: bool = False) -> None:
        """Record that S3 has lost a blob's object: its media are missing, and equal content is stored anew.

        Nothing is recorded of an object that was moved meanwhile: it is elsewhere. `remove_object` says that an object
        is there, but with other bytes, which are removed.
        """
        async with self._database.transaction() as connection:
            await lock_media_of(connection, blob.blob_id)
            moved = await connection.fetchval(
                "SELECT (store, object_key) <> ($2, $3) FROM blob WHERE blob_id = $1 FOR UPDATE",
                blob.blob_id,
                blob.store,
                blob.object_key,
            )
            if moved:
                return
            await connection.execute(
                """UPDATE blob SET missing_ts = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
                   WHERE blob_id = $1 AND missing_ts IS NULL""",
                blob.blob_id,
            )
            await connection.execute(
                "UPDATE media SET state = 'missing' WHERE blob_id = $1 AND state = 'ready'", blob.blob_id
            )
            if remove_object:
                await queue_deletion(connection, blob.store, blob.object_key)


def _media(mxc: Mxc, row: Row) -> Media | None:
    if row["state"] is None:
        return _hidden_in_advance(mxc) if row["hidden"] else None
    blob = None
    if row["blob_id"] is not None:
        blob = Blob(row["blob_id"], row["store"], row["object_key"], row["size_bytes"])
    return Media(
        mxc=mxc,
        state=MediaState.MISSING if row["missing_ts"] is not None else MediaState(row["state"]),
        remote=row["remote"],
        content_type=content_type_or_default(row["content_type"]),
        upload_name=row["upload_name"],
        created_ts=row["created_ts"],
        revision=row["revision"],
        authenticated=row["authenticated"],
        hidden=row["hidden"],
        hash_unverified=row["hash_unverified"] is True,
        blob=blob,
        import_source_id=row["import_source_id"],
    )


def _hidden_in_advance(mxc: Mxc) -> Media:
    return Media(
        mxc=mxc,
        state=MediaState.TOMBSTONE,
        remote=True,
        content_type="",
        upload_name=None,
        created_ts=0,
        revision=1,
        authenticated=True,
        hidden=True,
        blob=None,
    )


def _thumbnail(spec: ThumbnailSpec, row: Row) -> Thumbnail | None:
    if row["pack_id"] is None:
        return None
    if not 0 <= row["byte_offset"] < row["byte_offset"] + row["thumbnail_bytes"] <= row["pack_bytes"]:
        return None  # no stretch of the pack: as good as not kept
    pack = Blob(row["pack_id"], row["pack_store"], row["pack_key"], row["pack_bytes"])
    return Thumbnail(
        spec, content_type_or_default(row["thumbnail_type"]), pack, row["byte_offset"], row["thumbnail_bytes"]
    )


class AccessTable:
    """Writes last-access times in batches, so that reading media writes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, last_access: Mapping[Mxc, int]) -> None:
        """Move last-access times (ms) forward; media that is gone meanwhile is skipped."""
        ordered = sorted(last_access)
        async with self._database.connection() as connection:
            await connection.execute(
                """INSERT INTO media_access (server_name, media_id, last_access_ts)
                   SELECT m.server_name, m.media_id, seen.ts
                   FROM unnest($1::text[], $2::text[], $3::bigint[]) AS seen (server_name, media_id, ts)
                       JOIN media m USING (server_name, media_id)
                   ON CONFLICT (server_name, media_id) DO UPDATE SET last_access_ts = EXCLUDED.last_access_ts
                   WHERE media_access.last_access_ts < EXCLUDED.last_access_ts""",
                [mxc.server_name for mxc in ordered],
                [mxc.media_id for mxc in ordered],
                [last_access[mxc] for mxc in ordered],
            )


_INSERT = """
INSERT INTO thumbnail (source_blob_id, width, height, method, animated, blob_id, byte_offset, size_bytes, content_type)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
"""
_STORE_FACTS = """
INSERT INTO picture (blob_id, width, height, blurhash) VALUES ($1, $2, $3, $4)
ON CONFLICT (blob_id) DO UPDATE SET width = EXCLUDED.width, height = EXCLUDED.height, blurhash = EXCLUDED.blurhash
"""
_MOMENTARY_FAILURES = 3
_DAY_MS = 86_400_000
_NOTE_FAILURE = f"""
INSERT INTO thumbnail_failure AS f (source_blob_id, animated, reason, created_ts, retry_ts)
(SELECT blob_id, $2, $3, {NOW_MS},
    CASE WHEN $4 THEN {NOW_MS} WHEN NOT $5 THEN {NOW_MS} + {_DAY_MS} END
 FROM blob WHERE blob_id = $1 FOR KEY SHARE)
ON CONFLICT (source_blob_id, animated) DO UPDATE
SET reason = EXCLUDED.reason, attempts = f.attempts + 1,
    retry_ts = EXCLUDED.retry_ts + CASE WHEN f.attempts + 1 < {_MOMENTARY_FAILURES} THEN 0 ELSE {_DAY_MS} END
WHERE f.retry_ts IS NOT NULL
RETURNING coalesce(retry_ts > {NOW_MS}, true)
"""


class ThumbnailTable:
    """Writes what a render job made."""

    def __init__(self, database: Database, grace_ms: int) -> None:
        self._database = database
        self._grace_ms = grace_ms

    async def store(
        self,
        source: Blob,
        made: Sequence[RenderedThumbnail],
        pack: NewObject | None,
        facts: PictureFacts | None = None,
    ) -> bool:
        """Record a job's thumbnails, and what it found out about the picture; False when the source is gone.

        A pack that came second is queued for deletion.
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
            if facts is not None:
                await connection.execute(_STORE_FACTS, source.blob_id, facts.width, facts.height, facts.blurhash)
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

    async def note_failure(
        self, source: Blob, reason: str, *, animated: bool, momentary: bool, for_ever: bool = True
    ) -> bool:
        """Remember that content cannot be thumbnailed; False when it may be tried again at once.

        A momentary failure is remembered when it is the third, and then for a day; so is another one, from the first
        on, that is not to be remembered for ever.
        """
        async with self._database.connection() as connection:
            remembered = await connection.fetchval(_NOTE_FAILURE, source.blob_id, animated, reason, momentary, for_ever)
        return remembered is not False

    async def count(self, source: Blob) -> int:
        """Count the thumbnails kept of one source."""
        row = await self._database.get("SELECT count(*) FROM thumbnail WHERE source_blob_id = $1", source.blob_id)
        return int(row[0]) if row is not None else 0
