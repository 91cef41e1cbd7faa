"""Media ids that were given out for content that is to follow (client-server API, asynchronous uploads)."""

from collections.abc import Sequence
from dataclasses import dataclass

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Database
from mediarepo.db.failed_items import is_due
from mediarepo.db.records import MXC
from mediarepo.errors import LimitExceededError
from mediarepo.model.failed_items import Queue
from mediarepo.model.media import MediaState, PendingMedia
from mediarepo.model.mxc import Mxc


@dataclass(frozen=True, slots=True)
class Announced:
    """What is known of a media id: who announced it, and whether content may still follow."""

    state: MediaState
    uploaded_by: str | None
    expired: bool


class PendingTable:
    """Announces media ids, within what one user may have open at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, mxc: Mxc, uploaded_by: str, *, lifetime_ms: int, limit: int | None) -> PendingMedia:
        """Announce a media id; LimitExceededError says when the next one of the user's open ones runs out."""
        async with self._database.transaction() as connection:
            if limit is not None:
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 7))", uploaded_by)
                waiting = await connection.fetchrow(
                    f"""SELECT count(*) AS count, min(expires_ts) - {NOW_MS} AS next_ms FROM media
                        WHERE uploaded_by = $1 AND state = 'pending' AND expires_ts >= {NOW_MS}""",  # noqa: S608 - static text
                    uploaded_by,
                )
                if waiting is not None and waiting["count"] >= limit:
                    retry_after_s = max(1, -(-(waiting["next_ms"] or 0) // 1000))
                    raise LimitExceededError("too many uploads are pending already", retry_after_s=retry_after_s)
            expires_ts = await connection.fetchval(
                f"""INSERT INTO media
                        (server_name, media_id, state, remote, content_type, uploaded_by, created_ts, expires_ts,
                        authenticated)
                    VALUES ($1, $2, 'pending', false, '', $3, {NOW_MS}, {NOW_MS} + $4::bigint, true)
                    RETURNING expires_ts""",  # noqa: S608 - static text
                mxc.server_name,
                mxc.media_id,
                uploaded_by,
                lifetime_ms,
            )
        return PendingMedia(mxc, expires_ts)

    async def get(self, mxc: Mxc) -> Announced | None:
        """Read what is known of a media id."""
        row = await self._database.get(
            f"""SELECT state, uploaded_by, coalesce(expires_ts < {NOW_MS}, false) AS expired FROM media
                WHERE server_name = $1 AND media_id = $2 AND NOT remote""",  # noqa: S608 - static text
            mxc.server_name,
            mxc.media_id,
        )
        return None if row is None else Announced(MediaState(row["state"]), row["uploaded_by"], row["expired"])

    async def expired(self, age_ms: int, limit: int) -> list[Mxc]:
        """Name ids that ran out at least so long ago without content, what was set aside left out."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT m.server_name, m.media_id FROM media m
                    WHERE m.state = 'pending' AND m.expires_ts < {NOW_MS} - $1::bigint
                        AND {is_due(Queue.PENDING_MEDIA, MXC)}
                    ORDER BY m.expires_ts LIMIT $2""",  # noqa: S608 - static text
                age_ms,
                limit,
            )
        return [Mxc(row["server_name"], row["media_id"]) for row in rows]

    async def forget_expired(self, mxcs: Sequence[Mxc], age_ms: int) -> int:
        """Remove ids that ran out at least so long ago without content; returns how many."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"""DELETE FROM media WHERE state = 'pending' AND expires_ts < {NOW_MS} - $1::bigint
                        AND (server_name, media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))""",  # noqa: S608 - static text
                age_ms,
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
            )
        return int(tag.rpartition(" ")[2])
