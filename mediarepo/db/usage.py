"""Usage counters of media and objects, kept by triggers in the transactions that change them."""

from collections.abc import Sequence
from typing import Literal

from mediarepo.db.database import Database
from mediarepo.db.failed_items import is_due
from mediarepo.model.media_admin import UserOrder, UserUsage
from mediarepo.model.tasks import Queue
from mediarepo.model.usage import DayObjects, DayUsage, ObjectUsage, Usage, UsageBy, UsageFilter

_MEDIA = "class, server_name, user_id, content_type, month"

_FOLD_MEDIA = f"""
    WITH taken AS (
        DELETE FROM media_usage_delta
        WHERE delta_id = ANY($1::bigint[]) RETURNING *
    ), folded AS (
        INSERT INTO media_usage ({_MEDIA}, media_count, size_bytes)
        SELECT {_MEDIA}, sum(media_count), sum(size_bytes) FROM taken GROUP BY {_MEDIA} ORDER BY {_MEDIA}
        ON CONFLICT ({_MEDIA}) DO UPDATE SET media_count = media_usage.media_count + EXCLUDED.media_count,
            size_bytes = media_usage.size_bytes + EXCLUDED.size_bytes
    )
    SELECT count(*) FROM taken
"""
_FOLD_OBJECTS = """
    WITH taken AS (
        DELETE FROM object_usage_delta
        WHERE delta_id = ANY($1::bigint[]) RETURNING *
    ), folded AS (
        INSERT INTO object_usage (store, class, object_count, size_bytes)
        SELECT store, class, sum(object_count), sum(size_bytes) FROM taken GROUP BY store, class ORDER BY store, class
        ON CONFLICT (store, class) DO UPDATE SET object_count = object_usage.object_count + EXCLUDED.object_count,
            size_bytes = object_usage.size_bytes + EXCLUDED.size_bytes
    )
    SELECT count(*) FROM taken
"""
Counter = Literal["media", "object"]
_FOLD: dict[Counter, str] = {"media": _FOLD_MEDIA, "object": _FOLD_OBJECTS}
_ALL = f"""(SELECT {_MEDIA}, media_count, size_bytes FROM media_usage
    UNION ALL SELECT {_MEDIA}, media_count, size_bytes FROM media_usage_delta) u"""
"""The counters of media and what is not folded into them yet, as SQL."""
_ALL_OBJECTS = """(SELECT store, class, object_count, size_bytes FROM object_usage
    UNION ALL SELECT store, class, object_count, size_bytes FROM object_usage_delta) u"""
"""The same of objects."""


def _fitting(column: str) -> str:
    """Give the SQL of a sum that is cut off at what a bigint holds."""
    return f"least(greatest(sum({column}), -9223372036854775807), 9223372036854775807)::bigint"


class UsageTable:
    """Reads the counters, and folds their deltas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_media(self, by: Sequence[UsageBy], only: UsageFilter, limit: int) -> list[Usage]:
        """Return the usage of media in groups, largest first."""
        columns = ", ".join(by)
        query = f"""SELECT {columns}{"," if by else ""} {_fitting("media_count")} AS media_count,
                {_fitting("size_bytes")} AS size_bytes
            FROM {_ALL}
            WHERE ($1::text IS NULL OR class = $1) AND ($2::text IS NULL OR server_name = $2)
                AND ($3::text IS NULL OR user_id = $3)
            {f"GROUP BY {columns}" if by else ""} HAVING sum(media_count) <> 0
            ORDER BY sum(size_bytes) DESC, sum(media_count) DESC{f", {columns}" if by else ""} LIMIT $4"""
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, only.usage_class, only.server_name, only.user_id, limit)
        return [Usage({name: row[name] for name in by}, row["media_count"], row["size_bytes"]) for row in rows]

    async def of_objects(self) -> list[ObjectUsage]:
        """Return the usage of objects by store and class."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT store, class, {_fitting("object_count")}, {_fitting("size_bytes")}
                   FROM {_ALL_OBJECTS}
                   GROUP BY store, class HAVING sum(object_count) <> 0 ORDER BY store, class"""
            )
        return [ObjectUsage(*row.values()) for row in rows]

    async def deltas(self, counter: Counter, limit: int) -> list[int]:
        """Return a counter's oldest deltas, failed items excluded."""
        key = f"'{counter} ' || d.delta_id"
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT d.delta_id FROM {counter}_usage_delta d WHERE {is_due(Queue.USAGE, key)}
                    ORDER BY d.delta_id LIMIT $1""",
                limit,
            )
        return [row["delta_id"] for row in rows]

    async def fold(self, counter: Counter, delta_ids: Sequence[int]) -> int:
        """Fold deltas into their counter; returns how many."""
        async with self._database.connection() as connection:
            count: int = await connection.fetchval(_FOLD[counter], list(delta_ids))
        return count

    async def forget_empty(self) -> None:
        """Remove counters that are zero."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM media_usage WHERE media_count = 0 AND size_bytes = 0")


_ORDERS = {
    UserOrder.USER_ID: "user_id",
    UserOrder.DISPLAYNAME: "user_id",
    UserOrder.MEDIA_LENGTH: "media_length",
    UserOrder.MEDIA_COUNT: "media_count",
}


class StatisticsTable:
    """Adds up uploads by user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_users(
        self,
        server_name: str,
        *,
        order: UserOrder,
        backwards: bool,
        start: int,
        limit: int,
        from_ts: int,
        until_ts: int | None,
        search_term: str | None,
    ) -> tuple[list[UserUsage], int]:
        """Return a page of the users who uploaded within a period, and their number."""
        direction = "DESC" if backwards else "ASC"
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT m.uploaded_by AS user_id, count(*) AS media_count,
                        coalesce(sum(b.size_bytes), 0)::bigint AS media_length, count(*) OVER () AS total
                    FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
                    WHERE m.server_name = $1 AND NOT m.remote AND m.state IN ('ready', 'missing')
                        AND m.uploaded_by IS NOT NULL AND m.created_ts >= $2
                        AND ($3::bigint IS NULL OR m.created_ts <= $3)
                        AND ($4::text IS NULL OR strpos(lower(m.uploaded_by), lower($4)) > 0)
                    GROUP BY m.uploaded_by ORDER BY {_ORDERS[order]} {direction}, m.uploaded_by LIMIT $5 OFFSET $6""",
                server_name,
                from_ts,
                until_ts,
                search_term,
                limit,
                start,
            )
        users = [UserUsage(row["user_id"], row["media_count"], row["media_length"]) for row in rows]
        return users, rows[0]["total"] if rows else 0


_TODAY = "(now() AT TIME ZONE 'UTC')::date"

_NOTE_MEDIA = f"""
    INSERT INTO media_usage_day (day, class, server_name, media_count, size_bytes)
    SELECT {_TODAY}, class, CASE WHEN class = 'local' THEN server_name ELSE '' END AS server_name,
        {_fitting("media_count")}, {_fitting("size_bytes")}
    FROM {_ALL} GROUP BY 2, 3 HAVING sum(media_count) <> 0
"""
_NOTE_OBJECTS = f"""
    INSERT INTO object_usage_day (day, store, class, object_count, size_bytes)
    SELECT {_TODAY}, store, class, {_fitting("object_count")}, {_fitting("size_bytes")}
    FROM {_ALL_OBJECTS} GROUP BY 2, 3 HAVING sum(object_count) <> 0
"""


class UsageDayTable:
    """Writes and reads the usage of each day."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self) -> None:
        """Write today's usage, in place of what was written before on this day (in UTC)."""
        async with self._database.transaction() as connection:
            await connection.execute(f"DELETE FROM media_usage_day WHERE day = {_TODAY}")
            await connection.execute(f"DELETE FROM object_usage_day WHERE day = {_TODAY}")
            await connection.execute(_NOTE_MEDIA)
            await connection.execute(_NOTE_OBJECTS)

    async def of_media(self, days: int, server_name: str | None) -> list[DayUsage]:
        """Return the last `days` days' usage, oldest first; of one homeserver's local media, or all."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT day::text, class, server_name, media_count, size_bytes FROM media_usage_day
                    WHERE day > {_TODAY} - $1::int
                        AND ($2::text IS NULL OR (class = 'local' AND server_name = $2))
                    ORDER BY day, class, server_name""",
                days,
                server_name,
            )
        return [DayUsage(*row.values()) for row in rows]

    async def of_objects(self, days: int) -> list[DayObjects]:
        """Return the last `days` days' usage of the stores, oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT day::text, store, class, object_count, size_bytes FROM object_usage_day
                    WHERE day > {_TODAY} - $1::int ORDER BY day, store, class""",
                days,
            )
        return [DayObjects(*row.values()) for row in rows]
