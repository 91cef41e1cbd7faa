"""Cached URL previews and their images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mediarepo.db.database import NOW_MS, Database, all_but_newest_sql
from mediarepo.db.deletion import delete_all_if_unreferenced
from mediarepo.db.failed_items import is_due
from mediarepo.db.media_admin import MXC
from mediarepo.db.media_marks import marked_sql
from mediarepo.model.marks import MarkKind
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue, storable_json, storable_text

_FREE = f"NOT {marked_sql(MarkKind.HOLD)} AND NOT {marked_sql(MarkKind.PIN)}"
"""That nobody wants media kept."""


@dataclass(frozen=True, slots=True)
class CachedPreview:
    """A cached preview, or the error instead."""

    answer: dict[str, str | int] | None
    failure: str | None


class PreviewTable:
    """Caches previews, and evicts old or excess ones."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, cache_key: bytes) -> CachedPreview | None:
        """Return a preview that has not expired."""
        row = await self._database.get(
            f"SELECT answer, failure FROM preview WHERE cache_key = $1 AND expires_ts > {NOW_MS}",
            cache_key,
        )
        if row is None:
            return None
        return CachedPreview(None if row["answer"] is None else json.loads(row["answer"]), row["failure"])

    async def keep(self, cache_key: bytes, url: str, kept: CachedPreview, lifetime_ms: int) -> None:
        """Store a preview."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO preview (cache_key, url, answer, failure, created_ts, expires_ts)
                    VALUES ($1, $2, $3, $4, {NOW_MS}, {NOW_MS} + $5::bigint)
                    ON CONFLICT (cache_key) DO UPDATE SET answer = EXCLUDED.answer, failure = EXCLUDED.failure,
                        created_ts = EXCLUDED.created_ts, expires_ts = EXCLUDED.expires_ts""",
                cache_key,
                storable_text(url),
                None if kept.answer is None else storable_json(kept.answer),
                None if kept.failure is None else storable_text(kept.failure),
                lifetime_ms,
            )

    async def forget_expired(self, keep: int) -> None:
        """Remove expired previews, and all but the newest `keep`."""
        async with self._database.connection() as connection:
            await connection.execute(f"DELETE FROM preview WHERE expires_ts <= {NOW_MS}")
            await connection.execute(all_but_newest_sql("preview", "created_ts", "$1"), keep)

    async def expired_images(self, limit: int) -> list[Mxc]:
        """Return images that have expired."""
        return await self._images(f"m.preview_expires_ts <= {NOW_MS}", limit)

    async def images_over_budget(self, budget_bytes: int, limit: int) -> list[Mxc]:
        """Return the oldest images beyond the budget."""
        return await self._images(
            """(m.server_name, m.media_id) IN (
                SELECT server_name, media_id FROM (
                    SELECT m.server_name, m.media_id,
                        sum(b.size_bytes) OVER (ORDER BY m.created_ts DESC, m.media_id) AS taken
                    FROM media m JOIN blob b USING (blob_id) WHERE m.preview_expires_ts IS NOT NULL) newest
                WHERE taken > $2)""",
            limit,
            budget_bytes,
        )

    async def _images(self, condition: str, limit: int, *arguments: object) -> list[Mxc]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT m.server_name, m.media_id FROM media m
                    WHERE m.preview_expires_ts IS NOT NULL AND {_FREE}
                        AND {condition} AND {is_due(Queue.PREVIEWS, MXC)}
                    ORDER BY m.server_name, m.media_id LIMIT $1""",
                limit,
                *arguments,
            )
        return [Mxc(row["server_name"], row["media_id"]) for row in rows]

    async def forget_images(self, mxcs: Sequence[Mxc]) -> int:
        """Remove images and the previews that show them; returns how many."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""SELECT server_name, media_id, blob_id FROM media m
                   WHERE preview_expires_ts IS NOT NULL AND {_FREE}
                       AND (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
                   ORDER BY server_name, media_id FOR UPDATE SKIP LOCKED""",
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
            )
            names = [row["server_name"] for row in rows], [row["media_id"] for row in rows]
            await connection.execute(
                """DELETE FROM preview WHERE substring(answer::text FROM '"og:image": "([^"]*)"') IN (
                       SELECT 'mxc://' || s || '/' || i FROM unnest($1::text[], $2::text[]) AS n (s, i))""",
                *names,
            )
            await connection.execute(
                "DELETE FROM media WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                *names,
            )
            await delete_all_if_unreferenced(connection, [row["blob_id"] for row in rows])
        return len(rows)
