"""Hiding content and showing it again.

What is hidden is looked up whenever media are read, so a change counts for every request that begins after it, in every
process. Hashes stay hidden when the media are gone; protected media are spared. Content that is too short to say
anything is hidden by its address only.
"""

from collections.abc import Sequence

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection, Database
from mediarepo.db.records import QUARANTINED_BY
from mediarepo.model.mxc import Mxc
from mediarepo.model.records import Change, HiddenHash, HiddenServer
from mediarepo.model.short_content import SMALLEST_HIDDEN_BYTES

_NAMED = "(m.server_name, m.media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
_CONTENT_OF_NAMED = f"""SELECT b.sha256 FROM media m JOIN blob b ON b.blob_id = m.blob_id
    WHERE {_NAMED} AND b.sha256_state = 'verified' AND b.size_bytes >= {SMALLEST_HIDDEN_BYTES}"""  # noqa: S608 - static text


class QuarantineTable:
    """Hides media by themselves and by their content."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hide(self, mxcs: Sequence[Mxc], *, by: str, reason: str | None) -> int:
        """Hide media, protected ones aside, and all with the same content; gives how many were not hidden before.

        Media that are not known yet are hidden in advance, so that they are never fetched.
        """
        names = [mxc.server_name for mxc in mxcs], [mxc.media_id for mxc in mxcs]
        async with self._database.transaction() as connection:
            await self._announce_hiding(connection, *names)
            count = await self._note_changes(connection, *names)
            await connection.execute(
                f"""INSERT INTO quarantined_hash (sha256, size_bytes, quarantined_by, reason, created_ts)
                    SELECT DISTINCT ON (b.sha256) b.sha256, b.size_bytes, $3::text, $4::text, {NOW_MS}
                    FROM media m JOIN blob b ON b.blob_id = m.blob_id
                    WHERE {_NAMED} AND NOT m.protected AND b.sha256_state = 'verified'
                        AND b.size_bytes >= {SMALLEST_HIDDEN_BYTES} ON CONFLICT DO NOTHING""",  # noqa: S608 - static text
                *names,
                by,
                reason,
            )
            await connection.execute(
                f"""UPDATE media m SET quarantined_by = $3, quarantine_reason = $4
                    WHERE {_NAMED} AND NOT m.protected AND m.quarantined_by IS NULL""",  # noqa: S608 - static text
                *names,
                by,
                reason,
            )
        return count

    async def show(self, mxcs: Sequence[Mxc]) -> int:
        """Show media again, and everything with the same content; gives how many were hidden before."""
        names = [mxc.server_name for mxc in mxcs], [mxc.media_id for mxc in mxcs]
        async with self._database.transaction() as connection:
            hashes = [row["sha256"] for row in await connection.fetch(_CONTENT_OF_NAMED, *names)]
            count = await connection.fetchval(
                f"""WITH shown AS (
                        SELECT m.server_name, m.media_id FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
                        WHERE ({_NAMED} OR b.sha256 = ANY($3::bytea[])) AND {QUARANTINED_BY} IS NOT NULL),
                    changes AS (
                        INSERT INTO quarantine_change (server_name, media_id, quarantined, created_ts)
                        SELECT server_name, media_id, false, {NOW_MS} FROM shown)
                    SELECT count(*) FROM shown""",  # noqa: S608 - static text
                *names,
                hashes,
            )
            await connection.execute("DELETE FROM quarantined_hash WHERE sha256 = ANY($1::bytea[])", hashes)
            await connection.execute(
                f"""UPDATE media m SET quarantined_by = NULL, quarantine_reason = NULL
                    WHERE quarantined_by IS NOT NULL
                        AND ({_NAMED} OR blob_id IN (SELECT blob_id FROM blob WHERE sha256 = ANY($3::bytea[])))""",  # noqa: S608 - static text
                *names,
                hashes,
            )
            await connection.execute(
                f"DELETE FROM media m WHERE {_NAMED} AND remote AND state = 'tombstone'",  # noqa: S608 - static text
                *names,
            )
        return int(count)

    async def hide_hashes(self, hashes: Sequence[bytes], *, by: str, reason: str | None) -> int:
        """Hide content by SHA-256, whether it is here or not; gives how many hashes are new."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""INSERT INTO quarantined_hash (sha256, size_bytes, quarantined_by, reason, created_ts)
                    SELECT DISTINCT h, (SELECT min(size_bytes) FROM blob b WHERE b.sha256 = h), $2::text, $3::text,
                        {NOW_MS} FROM unnest($1::bytea[]) AS h
                    ON CONFLICT DO NOTHING RETURNING sha256""",  # noqa: S608 - static text
                list(hashes),
                by,
                reason,
            )
        return len(rows)

    async def show_hashes(self, hashes: Sequence[bytes]) -> int:
        """Show content again that was hidden by SHA-256; gives how many hashes that were."""
        async with self._database.connection() as connection:
            tag = await connection.execute("DELETE FROM quarantined_hash WHERE sha256 = ANY($1::bytea[])", list(hashes))
        return int(tag.rpartition(" ")[2])

    async def hide_server(self, server_name: str, *, by: str, reason: str | None) -> bool:
        """Hide everything of a server, what is here and what is not; False when it was hidden before."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"""INSERT INTO quarantined_server_name (server_name, quarantined_by, reason, created_ts)
                    VALUES ($1, $2, $3, {NOW_MS}) ON CONFLICT DO NOTHING""",  # noqa: S608 - static text
                server_name,
                by,
                reason,
            )
        return bool(tag == "INSERT 0 1")

    async def show_server(self, server_name: str) -> bool:
        """Show a server's media again; False when it was not hidden."""
        async with self._database.connection() as connection:
            tag = await connection.execute("DELETE FROM quarantined_server_name WHERE server_name = $1", server_name)
        return bool(tag == "DELETE 1")

    async def servers(self) -> list[HiddenServer]:
        """Read the servers that are hidden."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT server_name, quarantined_by, reason, created_ts FROM quarantined_server_name ORDER BY 1"
            )
        return [HiddenServer(*row.values()) for row in rows]

    async def hashes(self, after: bytes, limit: int) -> list[HiddenHash]:
        """Read hidden hashes in their order, from behind one on."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT sha256, quarantined_by, reason, created_ts FROM quarantined_hash
                   WHERE sha256 > $1 ORDER BY sha256 LIMIT $2""",
                after,
                limit,
            )
        return [HiddenHash(*row.values()) for row in rows]

    async def of_user(self, user_id: str) -> list[Mxc]:
        """Name a user's uploads."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT server_name, media_id FROM media
                   WHERE uploaded_by = $1 AND NOT remote AND state IN ('ready', 'missing', 'trashed')""",
                user_id,
            )
        return [Mxc(row["server_name"], row["media_id"]) for row in rows]

    async def protect(self, mxc: Mxc, *, protected: bool) -> bool:
        """Spare media of quarantine, or no longer; False when there are none."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                "UPDATE media SET protected = $3 WHERE server_name = $1 AND media_id = $2",
                mxc.server_name,
                mxc.media_id,
                protected,
            )
        return bool(tag == "UPDATE 1")

    async def changes(self, after_id: int, limit: int) -> list[Change]:
        """Read what was hidden and shown, oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM quarantine_change WHERE change_id > $1 ORDER BY change_id LIMIT $2", after_id, limit
            )
        return [Change(row["change_id"], Mxc(row["server_name"], row["media_id"]), row["quarantined"]) for row in rows]

    async def last_change(self) -> int:
        """Read the number of the newest change, 0 when there is none."""
        row = await self._database.get("SELECT coalesce(max(change_id), 0) FROM quarantine_change")
        return 0 if row is None else int(row[0])

    @staticmethod
    async def _announce_hiding(connection: Connection, servers: list[str], media_ids: list[str]) -> None:
        await connection.execute(
            f"""INSERT INTO media (server_name, media_id, state, remote, content_type, created_ts, authenticated)
                SELECT s, i, 'tombstone', true, '', {NOW_MS}, true FROM unnest($1::text[], $2::text[]) AS n (s, i)
                ON CONFLICT DO NOTHING""",  # noqa: S608 - static text
            servers,
            media_ids,
        )

    @staticmethod
    async def _note_changes(connection: Connection, servers: list[str], media_ids: list[str]) -> int:
        """Write down which media are going to be hidden that were not."""
        count = await connection.fetchval(
            f"""WITH hidden AS (
                    SELECT m.server_name, m.media_id FROM media m LEFT JOIN blob b ON b.blob_id = m.blob_id
                    WHERE NOT m.protected AND {QUARANTINED_BY} IS NULL AND m.state <> 'pending'
                        AND ({_NAMED} OR b.sha256 IN (
                            SELECT sha256 FROM blob JOIN media m USING (blob_id) WHERE {_NAMED} AND NOT m.protected
                                AND sha256_state = 'verified' AND size_bytes >= {SMALLEST_HIDDEN_BYTES}))),
                changes AS (
                    INSERT INTO quarantine_change (server_name, media_id, quarantined, created_ts)
                    SELECT server_name, media_id, true, {NOW_MS} FROM hidden)
                SELECT count(*) FROM hidden""",  # noqa: S608 - static text
            servers,
            media_ids,
        )
        return int(count)
