"""When the fleet last did its regular work."""

import json
from typing import Any

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Database, Row
from mediarepo.model.failed_items import storable_json, storable_text
from mediarepo.model.tasks import JobRun


class JobRuns:
    """One row for each regular job of the fleet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, name: str, least_gap_ms: int) -> bool:
        """Note that a job begins; False when it began less than `least_gap_ms` ago, here or elsewhere."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"""INSERT INTO job_run (name, started_ts) VALUES ($1, {NOW_MS})
                    ON CONFLICT (name) DO UPDATE SET started_ts = EXCLUDED.started_ts, finished_ts = NULL, error = NULL
                        WHERE job_run.started_ts <= {NOW_MS} - $2::bigint OR job_run.finished_ts IS NULL""",  # noqa: S608 - static text
                name,
                least_gap_ms,
            )
        return bool(tag == "INSERT 0 1")

    async def finish(self, name: str, *, error: str | None, result: dict[str, Any] | None) -> None:
        """Note that a job has ended, and how; one without a result keeps the last."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE job_run SET finished_ts = {NOW_MS}, error = $2, result = coalesce($3::jsonb, result)
                    WHERE name = $1""",  # noqa: S608 - static text
                name,
                None if error is None else storable_text(error),
                None if result is None else storable_json(result),
            )

    async def read(self) -> list[JobRun]:
        """Read all of them."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT name, started_ts, finished_ts, error, result FROM job_run ORDER BY name"
            )
        return [_run(row) for row in rows]


def _run(row: Row) -> JobRun:
    result = row["result"]
    return JobRun(
        row["name"], row["started_ts"], row["finished_ts"], row["error"], None if result is None else json.loads(result)
    )
