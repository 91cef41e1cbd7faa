"""Quotas and shared rate limits.

Whoever changes what a user has reserved holds an advisory lock on that user until the transaction ends, and takes it
after all other locks; so the sum of what is stored and reserved never exceeds a limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.errors import LimitExceededError, QuotaExceededError
from mediarepo.model.usage import QuotaLimits, Reservation

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 11))"
_HOME = "substr($1, strpos($1, ':') + 1)"
"""The user's own homeserver: what others say that the user uploaded, to them or long ago, is not counted."""
_TOTAL = f"""SELECT coalesce(sum(media_count), 0)::bigint AS media, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM (
        SELECT media_count, size_bytes FROM media_usage
            WHERE user_id = $1 AND server_name = {_HOME} AND class = 'local'
        UNION ALL SELECT media_count, size_bytes FROM media_usage_delta
            WHERE user_id = $1 AND server_name = {_HOME} AND class = 'local'
        UNION ALL SELECT 1, size_bytes FROM quota_reservation WHERE user_id = $1 AND expires_ts >= {NOW_MS}) taken"""
_UPLOADED = f"""FROM media m JOIN blob b ON b.blob_id = m.blob_id
    WHERE m.uploaded_by = $1 AND m.server_name = {_HOME} AND NOT m.remote AND m.state IN ('ready', 'missing')"""
_PERIOD = f"""SELECT count(*) AS media, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM (
        SELECT b.size_bytes {_UPLOADED} AND m.created_ts > {NOW_MS} - $2::bigint
        UNION ALL SELECT size_bytes FROM quota_reservation WHERE user_id = $1 AND expires_ts >= {NOW_MS}) taken"""
_ROOM_AGAIN = f"""SELECT created_ts + $2::bigint - {NOW_MS} FROM (
        SELECT m.created_ts, row_number() OVER later AS media, sum(b.size_bytes) OVER later AS bytes
        {_UPLOADED} AND m.created_ts > {NOW_MS} - $2::bigint WINDOW later AS (ORDER BY m.created_ts)) gone
    WHERE media >= $3 AND bytes >= $4 ORDER BY created_ts LIMIT 1"""


class QuotaTable:
    """Reserves space under quotas, and releases it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, user_id: str, size_bytes: int, limits: QuotaLimits, lifetime_ms: int) -> Reservation:
        """Reserve space for an upload.

        Raises QuotaExceededError, or LimitExceededError for too many pending uploads.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK, user_id)
            reservation_id = await connection.fetchval(
                f"""INSERT INTO quota_reservation (user_id, size_bytes, expires_ts)
                    VALUES ($1, $2, {NOW_MS} + $3::bigint) RETURNING reservation_id""",
                user_id,
                size_bytes,
                lifetime_ms,
            )
            await _check(connection, user_id, limits)
        return Reservation(reservation_id, user_id, limits)

    async def release(self, reservation: Reservation) -> None:
        """Release the reservation of a failed upload."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM quota_reservation WHERE reservation_id = $1", reservation.reservation_id
            )

    async def forget_expired(self) -> None:
        """Remove reservations that crashes left behind."""
        async with self._database.connection() as connection:
            await connection.execute(f"DELETE FROM quota_reservation WHERE expires_ts < {NOW_MS}")


async def commit_reservation(connection: Connection, reservation: Reservation, blob_id: int) -> None:
    """Replace a promise by the upload itself, whose media row stands; checks what the promise does not cover."""
    covered = await connection.fetchval(
        f"""DELETE FROM quota_reservation WHERE reservation_id = $1
            RETURNING expires_ts >= {NOW_MS} AND size_bytes >= (SELECT size_bytes FROM blob WHERE blob_id = $2)""",
        reservation.reservation_id,
        blob_id,
    )
    if not covered:
        await connection.execute(_LOCK, reservation.user_id)
        await _check(connection, reservation.user_id, reservation.limits)


async def _check(connection: Connection, user_id: str, limits: QuotaLimits) -> None:
    """Refuse when what is stored and promised, this upload included, is over a limit."""
    if limits.max_bytes is not None or limits.max_media is not None:
        total = await connection.fetchrow(_TOTAL, user_id)
        if total is not None and limits.max_bytes is not None and total["bytes"] > limits.max_bytes:
            raise QuotaExceededError(f"this upload would exceed your quota of {limits.max_bytes} bytes")
        if total is not None and limits.max_media is not None and total["media"] > limits.max_media:
            raise QuotaExceededError(f"you have reached your quota of {limits.max_media} uploads")
    if limits.max_bytes_per_period is None and limits.max_media_per_period is None:
        return
    recent = await connection.fetchrow(_PERIOD, user_id, limits.period_ms)
    if recent is None:
        return
    over_bytes = 0 if limits.max_bytes_per_period is None else max(0, recent["bytes"] - limits.max_bytes_per_period)
    over_media = 0 if limits.max_media_per_period is None else max(0, recent["media"] - limits.max_media_per_period)
    if over_bytes or over_media:
        wait_ms = await connection.fetchval(_ROOM_AGAIN, user_id, limits.period_ms, over_media, over_bytes)
        retry_after_s = max(1, -(-int(limits.period_ms if wait_ms is None else wait_ms) // 1000))
        raise LimitExceededError("you have reached your upload limit for now", retry_after_s=retry_after_s)


@dataclass(frozen=True, slots=True)
class BucketDelta:
    """What a process counted for one leaky bucket since its last report; the bucket leaks `per_s` a second."""

    bucket: str
    amount: float
    per_s: float


class RateTable:
    """Adds up the counts of all processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_deltas(self, deltas: Sequence[BucketDelta]) -> dict[str, float]:
        """Add to buckets; returns each bucket's level over all processes."""
        ordered = sorted(deltas, key=lambda one: one.bucket)
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""INSERT INTO rate_level (bucket, level, per_s, updated_ts)
                    SELECT bucket, amount, per_s, {NOW_MS}
                    FROM unnest($1::text[], $2::float8[], $3::float8[]) AS poured (bucket, amount, per_s)
                    ON CONFLICT (bucket) DO UPDATE SET level = EXCLUDED.level + greatest(0,
                            rate_level.level - greatest(0, EXCLUDED.updated_ts - rate_level.updated_ts) / 1000.0
                            * EXCLUDED.per_s),
                        per_s = EXCLUDED.per_s, updated_ts = greatest(EXCLUDED.updated_ts, rate_level.updated_ts)
                    RETURNING bucket, level""",
                [one.bucket for one in ordered],
                [one.amount for one in ordered],
                [one.per_s for one in ordered],
            )
        return {row["bucket"]: row["level"] for row in rows}

    async def forget_empty(self) -> None:
        """Remove empty buckets."""
        async with self._database.connection() as connection:
            await connection.execute(f"DELETE FROM rate_level WHERE updated_ts + level / per_s * 1000 < {NOW_MS}")
