"""Moves of objects between stores: which are chosen, and the transactions that make rows name another place.

A row names the new place only once the bytes are there, and the old object is queued for deletion in that transaction,
due after a grace: whoever read the row before can still read the object. A blob's row is locked, and must still be what
was read, so that a deletion, another move or a loss that came first wins.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg

from mediarepo.db.audit import write_entries
from mediarepo.db.database import NOW_MS, Connection, Database, Row
from mediarepo.db.deletion import delete_if_unreferenced, lock_media_of, queue_deletion
from mediarepo.db.media_marks import hide_as_hash
from mediarepo.model.marks import AdminAction
from mediarepo.model.media import NewMedia, Ownership, StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.model.store_moves import MovableObject, MoveOutcome, MoveSelection, ObjectPlace, StoreMove
from mediarepo.model.tasks import storable_json

_PAGE = 500
_KEPT_MS = 30 * 86_400_000
"""How long it is known where an object came from."""

_CHOSEN = f"""
WITH page AS (
    SELECT blob_id, store, object_key, size_bytes, sha256, sha256_state, ownership, created_ts, parent_blob_id,
        coalesce(parent_blob_id, blob_id) AS source_id
    FROM blob WHERE store = $1 AND blob_id > $2 AND blob_id <= $3 AND missing_ts IS NULL
    ORDER BY blob_id LIMIT {_PAGE}),
classed AS (
    SELECT page.*, CASE WHEN parent_blob_id IS NOT NULL THEN 'thumbnails'
            WHEN EXISTS (SELECT FROM media m WHERE m.blob_id = page.blob_id AND NOT m.remote) THEN 'local'
            WHEN EXISTS (SELECT FROM media m WHERE m.blob_id = page.blob_id) THEN 'remote' ELSE 'local' END AS class
    FROM page)
SELECT blob_id, store, object_key, size_bytes, CASE WHEN sha256_state = 'verified' THEN sha256 END AS sha256, ownership,
    class, ARRAY(SELECT DISTINCT m.server_name FROM media m WHERE m.blob_id = source_id) AS server_names,
    ($4::text[] IS NULL OR class = ANY($4))
        AND ($5::bigint IS NULL OR created_ts < $5 AND parent_blob_id IS NOT NULL OR EXISTS (
                SELECT FROM media m WHERE m.blob_id = source_id AND m.created_ts < $5)
            AND NOT EXISTS (SELECT FROM media m WHERE m.blob_id = source_id AND m.created_ts >= $5))
        AND ($6::bigint IS NULL OR NOT EXISTS (
                SELECT FROM media m LEFT JOIN media_access a USING (server_name, media_id)
                WHERE m.blob_id = source_id AND greatest(m.created_ts, coalesce(a.last_access_ts, 0)) >= $6))
        AND ($7::bigint IS NULL OR size_bytes > $7)
        AND ($8::text IS NULL OR EXISTS (SELECT FROM media m WHERE m.blob_id = source_id AND m.server_name = $8))
        AND ($9::bigint IS NULL OR EXISTS (
                SELECT FROM moved_object o WHERE o.blob_id = classed.blob_id AND o.move_id = $9)) AS chosen
FROM classed ORDER BY blob_id
"""

_LOCKED = """SELECT ownership FROM blob
    WHERE blob_id = $1 AND store = $2 AND object_key = $3 AND missing_ts IS NULL FOR UPDATE"""


class StoreMoveTable:
    """Records moves, and makes rows name other places; `grace_ms` is how long an old object stays."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def chosen(self, selection: MoveSelection) -> AsyncIterator[list[MovableObject]]:
        """Iterate over the objects that a selection chooses, in pages; what is stored meanwhile is left out."""
        row = await self._database.get("SELECT coalesce(max(blob_id), 0) FROM blob WHERE store = $1",
                                       selection.from_store)  # fmt: skip
        last_id, after_id = int(row[0]) if row is not None else 0, 0
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    _CHOSEN,
                    selection.from_store,
                    after_id,
                    last_id,
                    selection.classes,
                    selection.created_before_ts,
                    selection.idle_since_ts,
                    selection.larger_than_bytes,
                    selection.server_name,
                    selection.of_move,
                )
            if page := [_movable(row) for row in rows if row["chosen"]]:
                yield page
            if len(rows) < _PAGE:
                return
            after_id = rows[-1]["blob_id"]

    async def begin(
        self,
        selection: MoveSelection,
        to_store: str,
        act: AdminAction,
        counts: Mapping[str, int],
        undoes: int | None = None,
    ) -> int:
        """Record that a move begins, in the audit of each homeserver with its own count; gives the move's id."""
        async with self._database.transaction() as connection:
            await connection.execute(f"DELETE FROM moved_object WHERE moved_ts < {NOW_MS} - $1::bigint", _KEPT_MS)
            move_id: int = await connection.fetchval(
                f"""INSERT INTO store_move (from_store, to_store, criteria, undoes, started_by, started_ts)
                    VALUES ($1, $2, $3::jsonb, $4, $5, {NOW_MS}) RETURNING move_id""",
                selection.from_store,
                to_store,
                storable_json(selection.criteria()),
                undoes,
                act.by,
            )
            target = f"store {selection.from_store} to store {to_store}"
            entries = [(name, target, count) for name, count in counts.items()]
            await write_entries(connection, act, entries or [(None, target, 0)])
        return move_id

    async def note(self, move_id: int, figures: Mapping[str, int], *, ended: bool = False) -> None:
        """Record how far a move is."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"""UPDATE store_move SET moved_count = $2, moved_bytes = $3, failed = $4,
                        ended_ts = CASE WHEN $5 THEN {NOW_MS} END
                    WHERE move_id = $1""",
                move_id,
                figures["moved"],
                figures["moved_bytes"],
                figures["failed"],
                ended,
            )

    async def moves(self, limit: int = 100) -> list[StoreMove]:
        """Return the last moves, newest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT move_id, from_store, to_store, criteria::text, undoes, started_by, started_ts, ended_ts,
                       moved_count, moved_bytes, failed,
                       (SELECT count(*) FROM moved_object o JOIN blob b USING (blob_id)
                        WHERE o.move_id = s.move_id AND b.store = s.to_store) AS left_to_undo
                   FROM store_move s ORDER BY move_id DESC LIMIT $1""",
                limit,
            )
        return [StoreMove(**{**dict(row), "criteria": json.loads(row["criteria"])}) for row in rows]

    async def former_places(self, blob_ids: Sequence[int], store: str) -> dict[int, ObjectPlace]:
        """Return where in a store objects lay before they were moved."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT blob_id, store, object_key, ownership FROM moved_object
                   WHERE blob_id = ANY($1::bigint[]) AND store = $2""",
                list(blob_ids),
                store,
            )
        return {
            row["blob_id"]: ObjectPlace(row["store"], row["object_key"], Ownership(row["ownership"])) for row in rows
        }

    async def describe(self, blob_id: int) -> NewMedia | None:
        """Return one of the media that an object is the content of, its uploads first; None without any."""
        row = await self._database.get(
            """SELECT server_name, media_id, content_type, upload_name, uploaded_by, authenticated, remote, created_ts
               FROM media WHERE blob_id = $1 ORDER BY remote, created_ts, server_name, media_id LIMIT 1""",
            blob_id,
        )
        if row is None:
            return None
        return NewMedia(
            mxc=Mxc(row["server_name"], row["media_id"]),
            content_type=row["content_type"],
            upload_name=row["upload_name"],
            uploaded_by=row["uploaded_by"],
            authenticated=row["authenticated"],
            remote=row["remote"],
            created_ts=row["created_ts"],
        )

    async def switch(
        self, move_id: int, found: MovableObject, to_store: str, object_key: str, grace_ms: int
    ) -> MoveOutcome:
        """Make a blob name its copy, whose intent is consumed; the old object goes after the grace."""
        try:
            async with self._database.transaction() as connection:
                intended = await connection.execute(
                    "DELETE FROM multipart_intent WHERE store = $1 AND object_key = $2", to_store, object_key
                )
                if intended != "DELETE 1":
                    return MoveOutcome.LATE
                if not await _lock(connection, found):
                    await queue_deletion(connection, to_store, object_key)
                    return MoveOutcome.GONE
                await _change(connection, move_id, found, ObjectPlace(to_store, object_key, Ownership.OWNED), grace_ms)
        except asyncpg.UniqueViolationError:
            return MoveOutcome.TWIN
        return MoveOutcome.MOVED

    async def put_back(
        self, move_id: int, found: MovableObject, place: ObjectPlace, grace_ms: int
    ) -> MoveOutcome | None:
        """Make a blob name the place again that it had, unless its object there may be deleted already: then None."""
        try:
            async with self._database.transaction() as connection:
                if not await _lock(connection, found):
                    return MoveOutcome.GONE
                if place.ownership is Ownership.OWNED:
                    kept = await connection.execute(
                        """DELETE FROM object_deletion
                           WHERE store = $1 AND object_key = $2 AND attempts = 0 AND upload_id IS NULL""",
                        place.store,
                        place.object_key,
                    )
                    if kept != "DELETE 1":
                        return None
                await _change(connection, move_id, found, place, grace_ms)
        except asyncpg.UniqueViolationError:
            return None
        return MoveOutcome.RETURNED

    async def join(self, found: MovableObject, to_store: str, grace_ms: int) -> MoveOutcome | None:
        """Give media the equal content that the other store has already; None when it has none.

        What goes with the blob, its thumbnails too, is deleted after the grace.
        """
        if found.sha256 is None or found.store_class is StoreClass.THUMBNAILS:
            return None
        if await self._database.get(_TWIN, to_store, found.sha256) is None:
            return None
        async with self._database.transaction() as connection:
            await lock_media_of(connection, found.blob_id)
            if not await _lock(connection, found):
                return MoveOutcome.GONE
            twin_id = await connection.fetchval(f"{_TWIN} FOR KEY SHARE", to_store, found.sha256)
            if twin_id is None:
                return None
            await hide_as_hash(connection, found.blob_id, found.sha256)
            places = await connection.fetch(_PLACES, found.blob_id)
            await connection.execute("UPDATE media SET blob_id = $2 WHERE blob_id = $1", found.blob_id, twin_id)
            await delete_if_unreferenced(connection, found.blob_id)
            await _postpone(connection, places, grace_ms)
            await connection.execute(
                "UPDATE blob SET sha256_state = 'claimed', claim_checked = true WHERE blob_id = $1", found.blob_id
            )
        return MoveOutcome.JOINED


_TWIN = """SELECT blob_id FROM blob WHERE store = $1 AND sha256 = $2 AND ownership = 'owned'
    AND sha256_state = 'verified' AND missing_ts IS NULL AND parent_blob_id IS NULL"""
_PLACES = """SELECT store, object_key FROM blob WHERE blob_id = $1 OR parent_blob_id = $1
    UNION SELECT b.store, b.object_key FROM thumbnail t JOIN blob b USING (blob_id) WHERE t.source_blob_id = $1"""


def _movable(row: Row) -> MovableObject:
    return MovableObject(
        row["blob_id"],
        row["store"],
        row["object_key"],
        row["size_bytes"],
        row["sha256"],
        Ownership(row["ownership"]),
        StoreClass(row["class"]),
        tuple(row["server_names"]),
    )


async def _lock(connection: Connection, found: MovableObject) -> bool:
    """Lock a blob's row; False when it is not what it was any more."""
    return await connection.fetchval(_LOCKED, found.blob_id, found.store, found.object_key) is not None


async def _change(
    connection: Connection, move_id: int, found: MovableObject, place: ObjectPlace, grace_ms: int
) -> None:
    """Write a blob's new place, remember the old one, and queue what lies there if it is ours."""
    await connection.execute(
        "UPDATE blob SET store = $2, object_key = $3, ownership = $4 WHERE blob_id = $1",
        found.blob_id,
        place.store,
        place.object_key,
        place.ownership,
    )
    await connection.execute(
        f"""INSERT INTO moved_object (blob_id, move_id, store, object_key, ownership, moved_ts)
            VALUES ($1, $2, $3, $4, $5, {NOW_MS})
            ON CONFLICT (blob_id) DO UPDATE SET move_id = EXCLUDED.move_id, store = EXCLUDED.store,
                object_key = EXCLUDED.object_key, ownership = EXCLUDED.ownership, moved_ts = EXCLUDED.moved_ts""",
        found.blob_id,
        move_id,
        found.store,
        found.object_key,
        found.ownership,
    )
    if found.ownership is Ownership.OWNED:
        await queue_deletion(connection, found.store, found.object_key)
        await _postpone(connection, [{"store": found.store, "object_key": found.object_key}], grace_ms)


async def _postpone(connection: Connection, places: Sequence[Mapping[str, str] | Row], grace_ms: int) -> None:
    """Let deletions that were queued just now wait until nobody reads the objects any more."""
    await connection.execute(
        f"""UPDATE object_deletion SET next_attempt_ts = {NOW_MS} + $3::bigint
            WHERE attempts = 0 AND (store, object_key) IN (SELECT * FROM unnest($1::text[], $2::text[]))""",
        [place["store"] for place in places],
        [place["object_key"] for place in places],
        grace_ms,
    )
