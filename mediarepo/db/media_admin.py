"""Media as admins see them: by address, by user, and by search."""

from collections.abc import Sequence

from mediarepo.db.database import Database, Row
from mediarepo.db.media_marks import hidden_sql, marked_by_sql, quarantined_by_sql
from mediarepo.model.marks import MarkKind
from mediarepo.model.media import MediaState
from mediarepo.model.media_admin import (
    MediaRecord,
    Page,
    RecordOrder,
    Search,
    SearchOrder,
    SearchPlace,
    StoredContent,
)
from mediarepo.model.mxc import Mxc

MXC = "'mxc://' || m.server_name || '/' || m.media_id"
"""The address of media, as text."""

FROM = """FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
    LEFT JOIN media_access a ON a.server_name = m.server_name AND a.media_id = m.media_id"""
_RECORDS = f"{FROM}\n    LEFT JOIN picture p ON p.blob_id = m.blob_id"


def record(viewer: str) -> str:
    """Return the SELECT list of all metadata of media; `viewer` is the SQL expression of who looks (NULL: all)."""
    return f"""m.server_name, m.media_id, m.state, m.remote, m.content_type, m.upload_name, m.uploaded_by, m.created_ts,
    a.last_access_ts, b.size_bytes, encode(b.sha256, 'hex') AS sha256, m.authenticated,
    {marked_by_sql(MarkKind.PROTECTION, viewer)} IS NOT NULL AS protected,
    {quarantined_by_sql(viewer)} AS quarantined_by,
    {marked_by_sql(MarkKind.PIN, viewer)} AS pinned_by,
    {marked_by_sql(MarkKind.HOLD, viewer)} AS held_by, m.trashed_ts, p.width, p.height, p.blurhash"""


_ORDERS = {
    RecordOrder.MEDIA_ID: "m.media_id",
    RecordOrder.UPLOAD_NAME: "m.upload_name",
    RecordOrder.CREATED_TS: "m.created_ts",
    RecordOrder.LAST_ACCESS_TS: "a.last_access_ts",
    RecordOrder.MEDIA_LENGTH: "b.size_bytes",
    RecordOrder.MEDIA_TYPE: "m.content_type",
    RecordOrder.QUARANTINED_BY: "quarantined_by",
    RecordOrder.SAFE_FROM_QUARANTINE: "protected",
}
_OF_USER = "m.uploaded_by = $1 AND m.server_name = $2 AND NOT m.remote AND m.state IN ('ready', 'missing', 'pending')"


class MediaAdminTable:
    """Reads media with all their metadata."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, mxc: Mxc, viewer: str | None) -> MediaRecord | None:
        """Read media as a homeserver sees it (None: all); None when it is unknown or deleted for good."""
        row = await self._database.get(
            f"""SELECT {record("$3::text")} {_RECORDS}
                WHERE m.server_name = $1 AND m.media_id = $2 AND m.state <> 'tombstone'""",
            mxc.server_name,
            mxc.media_id,
            viewer,
        )
        return None if row is None else record_of(row)

    async def of_user(
        self, user_id: str, server_name: str, *, order: RecordOrder, backwards: bool, start: int, limit: int
    ) -> Page:
        """Return a page of a user's uploads."""
        direction = "DESC NULLS LAST" if backwards else "ASC NULLS FIRST"
        query = f"""SELECT {record("$2::text")} {_RECORDS} WHERE {_OF_USER}
            ORDER BY {_ORDERS[order]} {direction}, m.media_id LIMIT $3 OFFSET $4"""
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, user_id, server_name, limit, start)
            total = await connection.fetchval(f"SELECT count(*) FROM media m WHERE {_OF_USER}", user_id, server_name)
        return Page([record_of(row) for row in rows], total)


def record_of(row: Row) -> MediaRecord:
    """Make a MediaRecord of a row with the columns of `record`."""
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
        width=row["width"],
        height=row["height"],
        blurhash=row["blurhash"],
    )


_VALUES = {
    SearchOrder.CREATED_TS: "m.created_ts",
    SearchOrder.LAST_ACCESS_TS: "coalesce(a.last_access_ts, 0)",
    SearchOrder.SIZE_BYTES: "coalesce(b.size_bytes, 0)",
}
_CONDITIONS = {
    "server_name": "m.server_name = {}",
    "user_id": "m.uploaded_by = {}",
    "remote": "m.remote = {}",
    "state": "m.state = {}",
    "content_type": "starts_with(m.content_type, {})",
    "upload_name": "strpos(lower(m.upload_name), lower({})) > 0",
    "sha256": "b.sha256 = {}",
    "quarantined": f"{hidden_sql('$1::text')} = {{}}",
    "pinned": f"({marked_by_sql(MarkKind.PIN, '$1::text')} IS NOT NULL) = {{}}",
    "held": f"({marked_by_sql(MarkKind.HOLD, '$1::text')} IS NOT NULL) = {{}}",
    "min_size_bytes": "b.size_bytes >= {}",
    "max_size_bytes": "b.size_bytes <= {}",
    "created_after_ts": "m.created_ts >= {}",
    "created_before_ts": "m.created_ts < {}",
    "idle_since_ts": "coalesce(a.last_access_ts, m.created_ts) < {}",
    "hidden_from": "NOT m.server_name = ANY({})",
}


_MARKS = {"pinned": MarkKind.PIN, "held": MarkKind.HOLD}
_MARKED = """(m.server_name, m.media_id) IN (SELECT k.server_name, k.media_id FROM media_mark k WHERE k.kind = '{}')"""
"""Says again what the condition of a mark says, in a form that lets Postgres begin with the few marks there are."""


_MAY_BE_QUARANTINED = """(m.media_id IN (SELECT k.media_id FROM media_mark k WHERE k.kind = 'quarantine')
    OR b.sha256 IN (SELECT h.sha256 FROM quarantined_hash h)
    OR m.blob_id IN (SELECT o.blob_id FROM quarantined_blob o)
    OR EXISTS (SELECT FROM quarantined_server_name))"""
"""True for all quarantined media, and cheap: most rows need no look at who hides what from whom."""


class StoredContentTable:
    """Reads where the content of media is, and what was made of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, mxc: Mxc) -> StoredContent | None:
        """Read the content of media; None when it has none, or is unknown."""
        async with self._database.transaction() as connection:
            blob = await connection.fetchrow(
                """SELECT b.blob_id, b.store, b.object_key, b.size_bytes, encode(b.sha256, 'hex') AS sha256,
                       b.sha256_state, b.ownership, b.missing_ts, b.created_ts,
                       (SELECT count(*) FROM media o WHERE o.blob_id = b.blob_id AND o.state <> 'tombstone')
                           AS media_count
                   FROM media m JOIN blob b ON b.blob_id = m.blob_id WHERE m.server_name = $1 AND m.media_id = $2""",
                mxc.server_name,
                mxc.media_id,
            )
            if blob is None:
                return None
            thumbnails = await connection.fetch(
                """SELECT t.width, t.height, t.method, t.animated, t.size_bytes, t.content_type, b.object_key
                   FROM thumbnail t JOIN blob b ON b.blob_id = t.blob_id WHERE t.source_blob_id = $1
                   ORDER BY t.width, t.height, t.method, t.animated""",
                blob["blob_id"],
            )
            failures = await connection.fetch(
                "SELECT animated, reason FROM thumbnail_failure WHERE source_blob_id = $1 ORDER BY animated",
                blob["blob_id"],
            )
        return StoredContent(**dict(blob), thumbnails=_dicts(thumbnails), thumbnail_failures=_dicts(failures))


def _dicts(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [dict(row) for row in rows]


class MediaSearchTable:
    """Searches media, page by page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, search: Search, order: SearchOrder, *, after: SearchPlace | None, limit: int
    ) -> tuple[list[MediaRecord], SearchPlace | None]:
        """Return a page, largest values first, and where it ended if there is more."""
        query, arguments = page_query(search, order, after=after, limit=limit)
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, *arguments)
        records = [record_of(row) for row in rows[:limit]]
        more = len(rows) > limit
        return records, SearchPlace(rows[limit - 1]["value"], records[-1].mxc) if more else None

    async def count(self, search: Search, limit: int) -> tuple[int, int]:
        """Return how many media a search finds, and their bytes together; it stops after `limit` of them."""
        query, arguments = count_query(search, limit)
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, *arguments)
        return rows[0][0], rows[0][1]


def page_query(
    search: Search, order: SearchOrder, *, after: SearchPlace | None, limit: int
) -> tuple[str, list[object]]:
    """Return the query of a page, which asks for one row more than `limit`, and its arguments."""
    value, (arguments, conditions) = _VALUES[order], _filter(search)
    if after is not None:
        arguments += [after.value, after.mxc.server_name, after.mxc.media_id]
        first = len(arguments) - 2
        conditions.append(f"({value}, m.server_name, m.media_id) < (${first}, ${first + 1}, ${first + 2})")
    arguments.append(limit + 1)
    query = f"""SELECT {record("$1::text")}, {value} AS value {_RECORDS} WHERE {" AND ".join(conditions)}
        ORDER BY {value} DESC, m.server_name DESC, m.media_id DESC LIMIT ${len(arguments)}"""
    return query, arguments


def count_query(search: Search, limit: int) -> tuple[str, list[object]]:
    """Return the query that counts media up to a limit, and its arguments."""
    arguments, conditions = _filter(search)
    arguments.append(limit)
    query = f"""SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM (
        SELECT b.size_bytes, $1::text AS viewer {FROM} WHERE {" AND ".join(conditions)}
        LIMIT ${len(arguments)}) found"""
    return query, arguments


def _filter(search: Search) -> tuple[list[object], list[str]]:
    """Return a search's arguments, of which the first is the viewer, and its conditions as SQL."""
    arguments, conditions = list[object]([search.viewer]), ["m.state <> 'tombstone'"]
    for name, condition in _CONDITIONS.items():
        wanted = getattr(search, name)
        if wanted is not None and wanted != ():
            arguments.append(list(wanted) if isinstance(wanted, tuple) else wanted)
            conditions.append(condition.format(f"${len(arguments)}"))
    conditions += [_MARKED.format(kind) for name, kind in _MARKS.items() if getattr(search, name)]
    if search.quarantined:
        conditions.append(_MAY_BE_QUARANTINED)
    return arguments, conditions
