"""Media as an admin sees them: single ones, and a user's."""

from mediarepo.db.connections import Database, Row
from mediarepo.model.media import MediaState
from mediarepo.model.mxc import Mxc
from mediarepo.model.records import MediaRecord, Page, RecordOrder
from mediarepo.model.short_content import SMALLEST_HIDDEN_BYTES

HIDDEN_BY_HASH = f"q.sha256 = b.sha256 AND b.size_bytes >= {SMALLEST_HIDDEN_BYTES} AND NOT m.protected"
"""Whether a hidden hash `q` hides media `m` with the blob `b`."""

QUARANTINED_BY = f"""coalesce(m.quarantined_by,
    (SELECT q.quarantined_by FROM quarantined_hash q WHERE {HIDDEN_BY_HASH}),
    (SELECT q.quarantined_by FROM quarantined_blob q WHERE q.blob_id = m.blob_id),
    (SELECT q.quarantined_by FROM quarantined_server_name q WHERE q.server_name = m.server_name))"""  # noqa: S608 - static text
"""Who hid media, in whichever way; the same conditions as when they are read."""

MXC = "'mxc://' || m.server_name || '/' || m.media_id"
"""The address of media, as text."""

FROM = """FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
    LEFT JOIN media_access a ON a.server_name = m.server_name AND a.media_id = m.media_id"""

RECORD = f"""m.server_name, m.media_id, m.state, m.remote, m.content_type, m.upload_name, m.uploaded_by, m.created_ts,
    a.last_access_ts, b.size_bytes, encode(b.sha256, 'hex') AS sha256, m.authenticated, m.protected,
    {QUARANTINED_BY} AS quarantined_by, m.pinned_by, m.held_by, m.trashed_ts"""
"""Everything that is known of media, for a SELECT."""

_ORDERS = {
    RecordOrder.MEDIA_ID: "m.media_id",
    RecordOrder.UPLOAD_NAME: "m.upload_name",
    RecordOrder.CREATED_TS: "m.created_ts",
    RecordOrder.LAST_ACCESS_TS: "a.last_access_ts",
    RecordOrder.MEDIA_LENGTH: "b.size_bytes",
    RecordOrder.MEDIA_TYPE: "m.content_type",
    RecordOrder.QUARANTINED_BY: QUARANTINED_BY,
    RecordOrder.SAFE_FROM_QUARANTINE: "m.protected",
}
_OF_USER = "m.uploaded_by = $1 AND m.server_name = $2 AND NOT m.remote AND m.state IN ('ready', 'missing', 'pending')"


class RecordTable:
    """Reads media with all that is known of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, mxc: Mxc) -> MediaRecord | None:
        """Read one; None when it is unknown or has been deleted for good."""
        row = await self._database.get(
            f"SELECT {RECORD} {FROM} WHERE m.server_name = $1 AND m.media_id = $2 AND m.state <> 'tombstone'",
            mxc.server_name,
            mxc.media_id,
        )
        return None if row is None else record_of(row)

    async def of_user(
        self, user_id: str, server_name: str, *, order: RecordOrder, backwards: bool, start: int, limit: int
    ) -> Page:
        """Read a stretch of a user's uploads."""
        direction = "DESC NULLS LAST" if backwards else "ASC NULLS FIRST"
        query = f"""SELECT {RECORD} {FROM} WHERE {_OF_USER}
            ORDER BY {_ORDERS[order]} {direction}, m.media_id LIMIT $3 OFFSET $4"""
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, user_id, server_name, limit, start)
            total = await connection.fetchval(f"SELECT count(*) FROM media m WHERE {_OF_USER}", user_id, server_name)  # noqa: S608 - static text
        return Page([record_of(row) for row in rows], total)


def record_of(row: Row) -> MediaRecord:
    """Make a record of a row with the columns of RECORD."""
    return MediaRecord(
        mxc=Mxc(row["server_name"], row["media_id"]),
        state=MediaState(row["state"]),
        remote=row["remote"],
        content_type=row["content_type"],
        upload_name=row["upload_name"],
        uploaded_by=row["uploaded_by"],
        created_ts=row["created_ts"],
        last_access_ts=row["last_access_ts"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        authenticated=row["authenticated"],
        protected=row["protected"],
        quarantined_by=row["quarantined_by"],
        pinned_by=row["pinned_by"],
        held_by=row["held_by"],
        trashed_ts=row["trashed_ts"],
    )
