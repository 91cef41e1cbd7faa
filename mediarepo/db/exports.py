"""Media to export, in the order of their keys."""

from collections.abc import AsyncGenerator

from mediarepo.db.database import NOW_MS, Database, Row
from mediarepo.db.media_marks import marked_sql, quarantined_by_sql
from mediarepo.model.exports import ExportMedia, ExportSelection
from mediarepo.model.marks import MarkKind
from mediarepo.model.media import Blob, MediaState
from mediarepo.model.mxc import Mxc

_PAGE = 500

_SELECTED = f"""FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
    LEFT JOIN media_access a ON a.server_name = m.server_name AND a.media_id = m.media_id
    WHERE m.state <> 'tombstone' AND (m.state <> 'pending' OR m.expires_ts >= {NOW_MS})
        AND m.preview_expires_ts IS NULL
        AND (m.server_name = $1 OR ($1::text IS NULL AND NOT m.remote) OR ($2::boolean AND m.remote))
        AND ($3::text IS NULL OR m.uploaded_by = $3)
        AND ($4::bigint IS NULL OR m.created_ts >= $4)
        AND (NOT $5::boolean OR m.import_source_id IS NULL OR EXISTS (
            SELECT FROM import_item i
            WHERE i.source_id = m.import_source_id AND i.server_name = m.server_name AND i.media_id = m.media_id
                AND ((i.mode = 'pending' AND m.state = 'ready')
                    OR (i.quarantined_by IS NULL AND {marked_sql(MarkKind.QUARANTINE)}))))"""

_PAGE_OF = f"""SELECT m.server_name, m.media_id, m.remote, m.content_type, m.upload_name, m.uploaded_by,
    CASE WHEN m.state = 'ready' AND b.missing_ts IS NOT NULL THEN 'missing' ELSE m.state END AS state,
    m.created_ts, m.expires_ts, a.last_access_ts, m.authenticated, {marked_sql(MarkKind.PROTECTION)} AS protected,
    {quarantined_by_sql()} AS quarantined_by,
    b.blob_id, b.store, b.object_key, b.size_bytes, b.sha256
    {_SELECTED} AND (m.server_name, m.media_id) > ($6, $7)
    ORDER BY m.server_name, m.media_id LIMIT {_PAGE}"""


class ExportTable:
    """Iterates over media in pages, so that no transaction outlives a page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, selection: ExportSelection) -> tuple[int, int]:
        """Return the number of media and their bytes."""
        query = f"SELECT count(*) AS media, coalesce(sum(b.size_bytes), 0)::bigint AS bytes {_SELECTED}"
        async with self._database.connection() as connection:
            row = await connection.fetchrow(query, *_arguments(selection))
        return (0, 0) if row is None else (row["media"], row["bytes"])

    async def count_by_server(self, selection: ExportSelection) -> dict[str, int]:
        """Count the local media of each server among them, and under "" the media of other servers."""
        query = f"""SELECT CASE WHEN m.remote THEN '' ELSE m.server_name END AS server_name, count(*) AS media
            {_SELECTED} GROUP BY 1"""
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, *_arguments(selection))
        return {row["server_name"]: row["media"] for row in rows}

    async def walk(self, selection: ExportSelection) -> AsyncGenerator[ExportMedia, None]:
        """Iterate over the selected media; preview images, which expire by themselves, are left out."""
        after = ("", "")
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(_PAGE_OF, *_arguments(selection), *after)
            for row in rows:
                yield _media(row)
            if len(rows) < _PAGE:
                return
            after = (rows[-1]["server_name"], rows[-1]["media_id"])


def _arguments(selection: ExportSelection) -> tuple[object, ...]:
    return (
        selection.server_name,
        selection.with_remote,
        selection.user_id,
        selection.since_ts,
        selection.native_only,
    )


def _media(row: Row) -> ExportMedia:
    blob = None
    if row["blob_id"] is not None:
        blob = Blob(row["blob_id"], row["store"], row["object_key"], row["size_bytes"])
    return ExportMedia(
        mxc=Mxc(row["server_name"], row["media_id"]),
        state=MediaState(row["state"]),
        remote=row["remote"],
        content_type=row["content_type"],
        upload_name=row["upload_name"],
        uploaded_by=row["uploaded_by"],
        created_ts=row["created_ts"],
        expires_ts=row["expires_ts"],
        last_access_ts=row["last_access_ts"],
        authenticated=row["authenticated"],
        protected=row["protected"],
        quarantined_by=row["quarantined_by"],
        blob=blob,
        sha256=row["sha256"],
    )
