"""Counters of what media and objects take up, kept by triggers in the transactions that change them.

A transaction adds rows of deltas, so that uploads never wait for one another at a counter; a job folds them together.
The sum of both tables is right at any moment.
"""

from collections.abc import Sequence

from mediarepo.db.connections import Database
from mediarepo.model.usage import ObjectUsage, Usage, UsageBy, UsageFilter

_BATCH = 50_000
_MEDIA = "class, server_name, user_id, content_type, month"

_FOLD_MEDIA = f"""
    WITH taken AS (
        DELETE FROM media_usage_delta
        WHERE delta_id IN (SELECT delta_id FROM media_usage_delta ORDER BY delta_id LIMIT $1) RETURNING *
    ), folded AS (
        INSERT INTO media_usage ({_MEDIA}, media_count, size_bytes)
        SELECT {_MEDIA}, sum(media_count), sum(size_bytes) FROM taken GROUP BY {_MEDIA} ORDER BY {_MEDIA}
        ON CONFLICT ({_MEDIA}) DO UPDATE SET media_count = media_usage.media_count + EXCLUDED.media_count,
            size_bytes = media_usage.size_bytes + EXCLUDED.size_bytes
    )
    SELECT count(*) FROM taken
"""  # noqa: S608 - static text
_FOLD_OBJECTS = """
    WITH taken AS (
        DELETE FROM object_usage_delta
        WHERE delta_id IN (SELECT delta_id FROM object_usage_delta ORDER BY delta_id LIMIT $1) RETURNING *
    ), folded AS (
        INSERT INTO object_usage (store, class, object_count, size_bytes)
        SELECT store, class, sum(object_count), sum(size_bytes) FROM taken GROUP BY store, class ORDER BY store, class
        ON CONFLICT (store, class) DO UPDATE SET object_count = object_usage.object_count + EXCLUDED.object_count,
            size_bytes = object_usage.size_bytes + EXCLUDED.size_bytes
    )
    SELECT count(*) FROM taken
"""
_ALL = f"""(SELECT {_MEDIA}, media_count, size_bytes FROM media_usage
    UNION ALL SELECT {_MEDIA}, media_count, size_bytes FROM media_usage_delta) u"""  # noqa: S608 - static text


class UsageTable:
    """Reads the counters, and folds their deltas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_media(self, by: Sequence[UsageBy], only: UsageFilter, limit: int) -> list[Usage]:
        """Add up media, split as asked for, the largest first."""
        columns = ", ".join(by)
        query = f"""SELECT {columns}{"," if by else ""} sum(media_count)::bigint AS media_count,
                sum(size_bytes)::bigint AS size_bytes
            FROM {_ALL}
            WHERE ($1::text IS NULL OR class = $1) AND ($2::text IS NULL OR server_name = $2)
                AND ($3::text IS NULL OR user_id = $3)
            {f"GROUP BY {columns}" if by else ""} HAVING sum(media_count) <> 0
            ORDER BY sum(size_bytes) DESC, sum(media_count) DESC{f", {columns}" if by else ""} LIMIT $4"""  # noqa: S608 - words of ours
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, only.usage_class, only.server_name, only.user_id, limit)
        return [Usage({name: row[name] for name in by}, row["media_count"], row["size_bytes"]) for row in rows]

    async def of_objects(self) -> list[ObjectUsage]:
        """Add up objects by store and class."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT store, class, sum(object_count)::bigint, sum(size_bytes)::bigint FROM (
                       SELECT store, class, object_count, size_bytes FROM object_usage
                       UNION ALL SELECT store, class, object_count, size_bytes FROM object_usage_delta) u
                   GROUP BY store, class HAVING sum(object_count) <> 0 ORDER BY store, class"""
            )
        return [ObjectUsage(*row.values()) for row in rows]

    async def fold(self) -> int:
        """Fold all deltas into the counters; gives how many they were."""
        total = 0
        for query in (_FOLD_MEDIA, _FOLD_OBJECTS):
            count = _BATCH
            while count == _BATCH:
                async with self._database.connection() as connection:
                    count = await connection.fetchval(query, _BATCH)
                total += count
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM media_usage WHERE media_count = 0 AND size_bytes = 0")
        return total
