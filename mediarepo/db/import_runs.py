"""Sources of imports, and the turns of their commands."""

import json
from collections.abc import Mapping

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Database, Row
from mediarepo.model.import_items import ImportRun, ImportSource

_RUN = "run_id, source_id, command, started_ts, heartbeat_ts, finished_ts, complete, figures, error"


class ImportRuns:
    """Writes down who imports what, and how far it has come."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def source(self, name: str, kind: str) -> ImportSource:
        """Find a source by its name, or note a new one."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"""INSERT INTO import_source (name, kind, created_ts) VALUES ($1, $2, {NOW_MS})
                    ON CONFLICT (name) DO UPDATE SET name = EXCLUDED.name
                    RETURNING source_id, name, kind, finalized_ts""",  # noqa: S608 - static text
                name,
                kind,
            )
        if row is None:
            raise LookupError(f"the source {name} could not be noted")
        return ImportSource(*row)

    async def find_source(self, name: str) -> ImportSource | None:
        """Find a source that something was imported from, or tried to."""
        row = await self._database.get(
            "SELECT source_id, name, kind, finalized_ts FROM import_source WHERE name = $1", name
        )
        return None if row is None else ImportSource(*row)

    async def finalize(self, source_id: int) -> None:
        """Note that nothing more is expected of a source."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE import_source SET finalized_ts = {NOW_MS} WHERE source_id = $1",  # noqa: S608 - static text
                source_id,
            )

    async def begin(self, source_id: int, command: str, options: Mapping[str, object]) -> int:
        """Note that a command begins; gives its number."""
        async with self._database.connection() as connection:
            run_id: int = await connection.fetchval(
                f"""INSERT INTO import_run (source_id, command, options, started_ts, heartbeat_ts)
                    VALUES ($1, $2, $3, {NOW_MS}, {NOW_MS}) RETURNING run_id""",  # noqa: S608 - static text
                source_id,
                command,
                json.dumps(options),
            )
        return run_id

    async def beat(self, run_id: int, figures: Mapping[str, object]) -> None:
        """Note how far a run has come."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE import_run SET heartbeat_ts = {NOW_MS}, figures = $2 WHERE run_id = $1",  # noqa: S608 - static text
                run_id,
                json.dumps(figures),
            )

    async def end(
        self, run_id: int, figures: Mapping[str, object], *, complete: bool, error: str | None = None
    ) -> None:
        """Note that a run has ended, and whether it saw all of its source."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE import_run SET heartbeat_ts = {NOW_MS}, finished_ts = {NOW_MS}, figures = $2, complete = $3,
                        error = $4
                    WHERE run_id = $1""",  # noqa: S608 - static text
                run_id,
                json.dumps(figures),
                complete,
                error,
            )

    async def latest(self, source_id: int, limit: int = 20) -> list[ImportRun]:
        """List the last runs, latest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_RUN} FROM import_run WHERE source_id = $1 ORDER BY run_id DESC LIMIT $2",  # noqa: S608 - static text
                source_id,
                limit,
            )
        return [_run(row) for row in rows]

    async def last_complete(self, source_id: int) -> ImportRun | None:
        """Read the last run that saw all of its source."""
        row = await self._database.get(
            f"SELECT {_RUN} FROM import_run WHERE source_id = $1 AND complete ORDER BY run_id DESC LIMIT 1",  # noqa: S608 - static text
            source_id,
        )
        return None if row is None else _run(row)


def _run(row: Row) -> ImportRun:
    return ImportRun(**{**dict(row), "figures": json.loads(row["figures"])})
