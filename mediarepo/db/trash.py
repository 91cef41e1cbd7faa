"""The trash: deleted media that can still be restored."""

from collections.abc import Sequence

from mediarepo.db.audit import mxc_entries, removal_entries, write_entries, write_entry
from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.db.deletion import delete_all_if_unreferenced, lock_media
from mediarepo.db.failed_items import is_due
from mediarepo.db.media_admin import FROM, MXC
from mediarepo.db.media_marks import held, hidden_sql, marked_sql, mxc_columns
from mediarepo.errors import ForbiddenError
from mediarepo.model.marks import AdminAction, MarkKind, Outcome
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue

_HELD = marked_sql(MarkKind.HOLD)
_IDLE = f"""coalesce(a.last_access_ts, m.created_ts) < $1 AND NOT {hidden_sql()} AND NOT {_HELD}
    AND NOT {marked_sql(MarkKind.PIN)}"""
_RESTORABLE = "(trashed_owner IS NULL OR $3 = '' OR trashed_owner = $3)"


class TrashTable:
    """Moves media into the trash, restores them, and deletes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, mxcs: Sequence[Mxc], act: AdminAction) -> list[Mxc]:
        """Move media into the trash, legal holds excluded; returns those moved.

        Media that others have put there become the operator's when the operator deletes them too.
        """
        async with self._database.transaction() as connection:
            await lock_media(connection, *mxc_columns(mxcs))
            rows = await connection.fetch(
                f"""UPDATE media m SET state = 'trashed', trashed_ts = {NOW_MS}, expires_ts = NULL, trashed_owner = $3
                    WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
                        AND state IN ('pending', 'ready', 'missing') AND NOT {_HELD}
                    RETURNING server_name, media_id""",
                *mxc_columns(mxcs),
                act.owner,
            )
            gone = [Mxc(row["server_name"], row["media_id"]) for row in rows]
            if act.by_operator:
                gone += await _take_over(connection, mxcs, act)
            await write_entries(connection, act, mxc_entries(act, gone))
        return gone

    async def held(self, mxcs: Sequence[Mxc]) -> int:
        """Count media under a legal hold."""
        async with self._database.connection() as connection:
            return len(await held(connection, mxcs))

    async def put_unused(self, mxcs: Sequence[Mxc], used_before_ts: int, act: AdminAction, target: str) -> list[Mxc]:
        """Move media into the trash unless they were used since, pinned or held; returns those moved."""
        async with self._database.transaction() as connection:
            await lock_media(connection, *mxc_columns(mxcs))
            rows = await connection.fetch(
                f"""UPDATE media SET state = 'trashed', trashed_ts = {NOW_MS} WHERE (server_name, media_id) IN (
                        SELECT m.server_name, m.media_id {FROM}
                        WHERE (m.server_name, m.media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))
                            AND m.state IN ('ready', 'missing') AND NOT {marked_sql(MarkKind.PROTECTION)} AND {_IDLE})
                    RETURNING server_name, media_id""",
                used_before_ts,
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
            )
            gone = [Mxc(row["server_name"], row["media_id"]) for row in rows]
            await write_entries(connection, act, removal_entries(act, target, gone))
        return gone

    async def take_back(self, mxc: Mxc, act: AdminAction) -> Outcome:
        """Restore media from the trash.

        Raises ForbiddenError when the operator put them there and somebody else asks.
        """
        async with self._database.transaction() as connection:
            tag = await connection.execute(
                f"""UPDATE media SET trashed_ts = NULL, trashed_owner = NULL,
                       state = CASE WHEN blob_id IS NULL THEN 'missing' ELSE 'ready' END
                   WHERE server_name = $1 AND media_id = $2 AND state = 'trashed' AND {_RESTORABLE}""",
                mxc.server_name,
                mxc.media_id,
                act.owner,
            )
            restored = int(tag == "UPDATE 1")
            rest = await connection.fetchval(
                "SELECT count(*) FROM media WHERE server_name = $1 AND media_id = $2 AND state = 'trashed'",
                mxc.server_name,
                mxc.media_id,
            )
            if rest:
                raise ForbiddenError("the operator has deleted this: only the operator may restore it")
            await write_entry(connection, act, str(mxc), restored)
        return Outcome(restored)

    async def due(self, age_ms: int, limit: int) -> list[Mxc]:
        """Return media in the trash for so long, longest first, failed items excluded."""
        return await self._names(
            f"""SELECT m.server_name, m.media_id FROM media m
                WHERE m.state = 'trashed' AND m.trashed_ts <= {NOW_MS} - $1::bigint AND NOT {_HELD}
                    AND {is_due(Queue.TRASH, MXC)}
                ORDER BY m.trashed_ts LIMIT $2""",
            age_ms,
            limit,
        )

    async def empty(self, mxcs: Sequence[Mxc], age_ms: int, act: AdminAction) -> int:
        """Delete media that have been in the trash for so long; returns how many."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""SELECT server_name, media_id, blob_id FROM media m
                    WHERE state = 'trashed' AND trashed_ts <= {NOW_MS} - $1::bigint AND NOT {_HELD}
                        AND (server_name, media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))
                    ORDER BY server_name, media_id FOR UPDATE SKIP LOCKED""",
                age_ms,
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
            )
            kept = await held(connection, [Mxc(row["server_name"], row["media_id"]) for row in rows])
            rows = [row for row in rows if Mxc(row["server_name"], row["media_id"]) not in kept]
            names = [row["server_name"] for row in rows], [row["media_id"] for row in rows]
            await connection.execute(
                """UPDATE media SET state = 'tombstone', trashed_ts = NULL, blob_id = NULL, revision = revision + 1
                   WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))""",
                *names,
            )
            await delete_all_if_unreferenced(connection, [row["blob_id"] for row in rows])
            gone = [Mxc(row["server_name"], row["media_id"]) for row in rows]
            await write_entries(connection, act, removal_entries(act, "trash", gone))
        return len(rows)

    async def idle_local(self, server_name: str, before_ts: int, size_over: int, limit: int) -> list[Mxc]:
        """Return local media unused since, larger than so many bytes, neither pinned nor held."""
        return await self._names(
            f"""SELECT m.server_name, m.media_id {FROM} WHERE {_IDLE} AND m.server_name = $2 AND NOT m.remote
                    AND NOT {marked_sql(MarkKind.PROTECTION)} AND coalesce(b.size_bytes, 0) > $3
                    AND m.state IN ('ready', 'missing')
                ORDER BY m.media_id LIMIT $4""",
            before_ts,
            server_name,
            size_over,
            limit,
        )

    async def _names(self, query: str, *arguments: object) -> list[Mxc]:
        async with self._database.connection() as connection:
            return [Mxc(row["server_name"], row["media_id"]) for row in await connection.fetch(query, *arguments)]

    async def idle_remote(self, before_ts: int, limit: int) -> list[Mxc]:
        """Return remote media unused since, failed items excluded."""
        return await self._names(
            f"""SELECT m.server_name, m.media_id {FROM} WHERE {_IDLE} AND m.remote
                    AND m.state IN ('ready', 'missing') AND {is_due(Queue.REMOTE_MEDIA, MXC)} LIMIT $2""",
            before_ts,
            limit,
        )

    async def forget_idle_remote(self, mxcs: Sequence[Mxc], before_ts: int, act: AdminAction) -> int:
        """Delete cached remote media unless they were used since; they are fetched again on request."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""SELECT m.server_name, m.media_id, m.blob_id {FROM}
                    WHERE (m.server_name, m.media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))
                        AND {_IDLE} AND m.remote AND m.state IN ('ready', 'missing')
                    ORDER BY m.server_name, m.media_id FOR UPDATE OF m SKIP LOCKED""",
                before_ts,
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
            )
            await connection.execute(
                "DELETE FROM media WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                [row["server_name"] for row in rows],
                [row["media_id"] for row in rows],
            )
            await delete_all_if_unreferenced(connection, [row["blob_id"] for row in rows])
            if rows:
                await write_entry(connection, act, f"before {before_ts}", len(rows))
        return len(rows)


async def _take_over(connection: Connection, mxcs: Sequence[Mxc], act: AdminAction) -> list[Mxc]:
    """Make the operator's what others have put into the trash, so that only the operator takes it out."""
    rows = await connection.fetch(
        """UPDATE media SET trashed_owner = $3 WHERE state = 'trashed' AND trashed_owner IS DISTINCT FROM $3
               AND (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
           RETURNING server_name, media_id""",
        *mxc_columns(mxcs),
        act.owner,
    )
    return [Mxc(row["server_name"], row["media_id"]) for row in rows]
