"""Leaky buckets that all processes pour into."""

from collections.abc import Sequence
from dataclasses import dataclass

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Database


@dataclass(frozen=True, slots=True)
class Poured:
    """What a process has counted for one bucket since it last told; the bucket leaks `per_s` a second."""

    bucket: str
    amount: float
    per_s: float


class RateTable:
    """Adds up what processes count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pour(self, poured: Sequence[Poured]) -> dict[str, float]:
        """Add to buckets; gives how full each of them is now, for all processes together."""
        ordered = sorted(poured, key=lambda one: one.bucket)
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""INSERT INTO rate_level (bucket, level, per_s, updated_ts)
                    SELECT bucket, amount, per_s, {NOW_MS}
                    FROM unnest($1::text[], $2::float8[], $3::float8[]) AS poured (bucket, amount, per_s)
                    ON CONFLICT (bucket) DO UPDATE SET level = EXCLUDED.level + greatest(0,
                            rate_level.level - greatest(0, EXCLUDED.updated_ts - rate_level.updated_ts) / 1000.0
                            * EXCLUDED.per_s),
                        per_s = EXCLUDED.per_s, updated_ts = greatest(EXCLUDED.updated_ts, rate_level.updated_ts)
                    RETURNING bucket, level""",  # noqa: S608 - static text
                [one.bucket for one in ordered],
                [one.amount for one in ordered],
                [one.per_s for one in ordered],
            )
        return {row["bucket"]: row["level"] for row in rows}

    async def forget_empty(self) -> None:
        """Remove buckets that have run dry."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"DELETE FROM rate_level WHERE updated_ts + level / per_s * 1000 < {NOW_MS}"  # noqa: S608 - static text
            )
