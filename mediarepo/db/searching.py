"""Media found by what is known of them."""

from mediarepo.db.connections import Database
from mediarepo.db.marks import hidden, marked_by
from mediarepo.db.records import FROM, record, record_of
from mediarepo.model.marks import MarkKind
from mediarepo.model.records import MediaRecord
from mediarepo.model.searching import Search, SearchOrder, SearchPlace

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
    "quarantined": f"{hidden('$1::text')} = {{}}",
    "pinned": f"({marked_by(MarkKind.PIN, '$1::text')} IS NOT NULL) = {{}}",
    "held": f"({marked_by(MarkKind.HOLD, '$1::text')} IS NOT NULL) = {{}}",
    "min_size_bytes": "b.size_bytes >= {}",
    "max_size_bytes": "b.size_bytes <= {}",
    "created_after_ts": "m.created_ts >= {}",
    "created_before_ts": "m.created_ts < {}",
    "idle_since_ts": "coalesce(a.last_access_ts, m.created_ts) < {}",
    "hidden_from": "NOT m.server_name = ANY({})",
}


class SearchTable:
    """Finds media, page by page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, search: Search, order: SearchOrder, *, after: SearchPlace | None, limit: int
    ) -> tuple[list[MediaRecord], SearchPlace | None]:
        """Find a page, the largest values first, and where it ended if there is more."""
        value, arguments, conditions = _VALUES[order], list[object]([search.viewer]), ["m.state <> 'tombstone'"]
        for name, condition in _CONDITIONS.items():
            wanted = getattr(search, name)
            if wanted is not None and wanted != ():
                arguments.append(list(wanted) if isinstance(wanted, tuple) else wanted)
                conditions.append(condition.format(f"${len(arguments)}"))
        if after is not None:
            arguments += [after.value, after.mxc.server_name, after.mxc.media_id]
            first = len(arguments) - 2
            conditions.append(f"({value}, m.server_name, m.media_id) < (${first}, ${first + 1}, ${first + 2})")
        arguments.append(limit + 1)
        query = f"""SELECT {record("$1::text")}, {value} AS value {FROM} WHERE {" AND ".join(conditions)}
            ORDER BY {value} DESC, m.server_name DESC, m.media_id DESC LIMIT ${len(arguments)}"""
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, *arguments)
        records = [record_of(row) for row in rows[:limit]]
        more = len(rows) > limit
        return records, SearchPlace(rows[limit - 1]["value"], records[-1].mxc) if more else None
