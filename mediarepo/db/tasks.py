"""Leases, tasks, runs of scheduled jobs, and the backlog.

A lease is a row and not an advisory lock, which would pin a connection; a holder that dies is replaced once its time is
up, and whatever it still writes then carries a fence that no longer stands in the row.
"""

import json
from typing import Any

from mediarepo.db.audit import write_entry
from mediarepo.db.database import NOW_MS, Connection, Database, LeaseLostError, Row
from mediarepo.db.failed_items import is_due
from mediarepo.model.marks import AdminAction
from mediarepo.model.tasks import JobRun, Lease, Queue, Task, TaskState, storable_json, storable_text

SERVER_LEASE = "server "
"""What the names of leases begin with that say that a server runs."""


class Leases:
    """Grants, renews and releases leases, by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, name: str, duration_ms: int) -> Lease | None:
        """Acquire a free lease; None while somebody holds it."""
        async with self._database.connection() as connection:
            fence = await connection.fetchval(
                f"""INSERT INTO lease (name, expires_ts) VALUES ($1, {NOW_MS} + $2::bigint)
                ON CONFLICT (name) DO UPDATE SET fence = DEFAULT, expires_ts = EXCLUDED.expires_ts
                    WHERE lease.expires_ts < {NOW_MS}
                RETURNING fence""",
                name,
                duration_ms,
            )
        return None if fence is None else Lease(name, fence)

    async def renew(self, lease: Lease, duration_ms: int) -> bool:
        """Extend a lease; False when it was lost."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"UPDATE lease SET expires_ts = {NOW_MS} + $3::bigint WHERE name = $1 AND fence = $2",
                lease.name,
                lease.fence,
                duration_ms,
            )
        return bool(tag == "UPDATE 1")

    async def release(self, lease: Lease) -> None:
        """Release a lease."""
        async with self._database.connection() as connection:
            await end_lease(connection, lease)

    async def forget_expired(self, age_ms: int) -> int:
        """Remove rows of leases expired for so long; returns how many."""
        async with self._database.connection() as connection:
            tag = await connection.execute(f"DELETE FROM lease WHERE expires_ts < {NOW_MS} - $1::bigint", age_ms)
        return int(tag.rpartition(" ")[2])


async def end_lease(connection: Connection, lease: Lease) -> bool:
    """Release a lease within a transaction; False when it was lost before."""
    tag = await connection.execute("DELETE FROM lease WHERE name = $1 AND fence = $2", lease.name, lease.fence)
    return bool(tag == "DELETE 1")


_COLUMNS = """task_id, kind, arguments, state, created_by, homeserver, created_ts, started_ts, finished_ts, attempts,
    cancelling, progress, result, error"""
_OURS = "EXISTS (SELECT FROM lease WHERE name = $2 AND fence = $3)"
"""A process that lost its lease on a task may not write to it any more: $2 and $3 are the lease's name and fence."""


class TaskTable:
    """The queue of tasks; what a runner writes carries its lease."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, kind: str, arguments: dict[str, Any], *, homeserver: str | None, act: AdminAction) -> Task:
        """Queue a task, and record who did, in one transaction. Raises AssertionError if the insert returns no row."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                f"""INSERT INTO task (kind, arguments, created_by, homeserver, created_ts)
                    VALUES ($1, $2, $3, $4, {NOW_MS}) RETURNING {_COLUMNS}""",
                kind,
                json.dumps(arguments),
                act.by,
                homeserver,
            )
            if row is None:
                raise AssertionError("a task that was inserted is returned")
            task = _task(row)
            await write_entry(connection, act, task.words, 0)
        return task

    async def get(self, task_id: int) -> Task | None:
        """Return a task; None when there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM task WHERE task_id = $1", task_id)
        return None if row is None else _task(row)

    async def read(self, *, homeserver: str | None, before_id: int, limit: int) -> list[Task]:
        """Return tasks, newest first, below an id; of one homeserver, or all."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT {_COLUMNS} FROM task WHERE task_id < $1 AND ($2::text IS NULL OR homeserver = $2)
                    ORDER BY task_id DESC LIMIT $3""",
                before_id,
                homeserver,
                limit,
            )
        return [_task(row) for row in rows]

    async def waiting(self, limit: int) -> list[int]:
        """Return tasks to run: queued ones, and those whose runner's lease has expired."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT task_id FROM task WHERE state IN ('queued', 'running') AND NOT EXISTS (
                        SELECT FROM lease WHERE name = 'task ' || task_id AND expires_ts >= {NOW_MS})
                        AND {is_due(Queue.TASKS, "task_id::text")}
                    ORDER BY task_id LIMIT $1""",
                limit,
            )
        return [row["task_id"] for row in rows]

    async def begin(self, task_id: int, lease: Lease) -> Task | None:
        """Start a task; None when it has ended meanwhile."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"""UPDATE task SET state = 'running', attempts = attempts + 1,
                        started_ts = coalesce(started_ts, {NOW_MS})
                    WHERE task_id = $1 AND state IN ('queued', 'running') AND {_OURS} RETURNING {_COLUMNS}""",
                task_id,
                lease.name,
                lease.fence,
            )
        return None if row is None else _task(row)

    async def report(self, task_id: int, lease: Lease, progress: dict[str, Any]) -> bool:
        """Record progress; returns whether to cancel. Raises LeaseLostError when another runner has the task."""
        async with self._database.connection() as connection:
            cancelling = await connection.fetchval(
                f"UPDATE task SET progress = $4 WHERE task_id = $1 AND {_OURS} RETURNING cancelling",
                task_id,
                lease.name,
                lease.fence,
                storable_json(progress),
            )
        if cancelling is None:
            raise LeaseLostError("another process has taken the task over")
        return bool(cancelling)

    async def end(
        self, task_id: int, lease: Lease, state: TaskState, *, result: dict[str, Any] | None, error: str | None
    ) -> None:
        """Record the end of a task, unless another runner has it."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE task SET state = $4, result = $5, error = $6, finished_ts = {NOW_MS}
                    WHERE task_id = $1 AND {_OURS}""",
                task_id,
                lease.name,
                lease.fence,
                state,
                None if result is None else storable_json(result),
                None if error is None else storable_text(error),
            )

    async def cancel(self, task_id: int, act: AdminAction) -> Task | None:
        """End a queued task, or ask its runner to stop, and record who did; None when there is no such task."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"""UPDATE task SET cancelling = true,
                        state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
                        finished_ts = CASE WHEN state = 'queued' THEN {NOW_MS} END
                    WHERE task_id = $1 AND state IN ('queued', 'running')""",
                task_id,
            )
            row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM task WHERE task_id = $1", task_id)
            task = None if row is None else _task(row)
            if task is not None:
                await write_entry(connection, act, task.words, 0)
        return task

    async def forget_ended(self, age_ms: int) -> None:
        """Remove tasks that ended long ago."""
        async with self._database.connection() as connection:
            await connection.execute(f"DELETE FROM task WHERE finished_ts < {NOW_MS} - $1::bigint", age_ms)


def _task(row: Row) -> Task:
    return Task(
        **{name: row[name] for name in ("task_id", "kind", "created_by", "homeserver", "created_ts", "started_ts")},
        **{name: row[name] for name in ("finished_ts", "attempts", "cancelling", "error")},
        arguments=json.loads(row["arguments"]),
        state=TaskState(row["state"]),
        progress=json.loads(row["progress"]),
        result=None if row["result"] is None else json.loads(row["result"]),
    )


class JobRuns:
    """One row for each scheduled job of the cluster."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, name: str, least_gap_ms: int) -> bool:
        """Record that a job starts; False when it started less than `least_gap_ms` ago, in any process."""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                f"""INSERT INTO job_run (name, started_ts) VALUES ($1, {NOW_MS})
                    ON CONFLICT (name) DO UPDATE SET started_ts = EXCLUDED.started_ts, finished_ts = NULL, error = NULL
                        WHERE job_run.started_ts <= {NOW_MS} - $2::bigint OR job_run.finished_ts IS NULL""",
                name,
                least_gap_ms,
            )
        return bool(tag == "INSERT 0 1")

    async def finish(self, name: str, *, error: str | None, result: dict[str, Any] | None) -> None:
        """Record the end and result of a job; without a result, the last one stays."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE job_run SET finished_ts = {NOW_MS}, error = $2, result = coalesce($3::jsonb, result)
                    WHERE name = $1""",
                name,
                None if error is None else storable_text(error),
                None if result is None else storable_json(result),
            )

    async def read(self) -> list[JobRun]:
        """Return all job runs."""
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


_QUERY = f"""SELECT
    (SELECT count(*) FROM object_deletion WHERE attempts > 0 OR next_attempt_ts <= {NOW_MS}) AS deletions,
    (SELECT count(*) FROM media WHERE state = 'trashed') AS trash,
    (SELECT count(*) FROM task WHERE state IN ('queued', 'running')) AS tasks,
    (SELECT count(*) FROM (SELECT FROM media_usage_delta LIMIT 1000000) deltas) AS usage,
    (SELECT count(*) FROM multipart_intent) AS multipart_uploads"""


class BacklogTable:
    """Counts waiting work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self) -> dict[str, int]:
        """Return the backlog by kind."""
        row = await self._database.get(_QUERY)
        return {} if row is None else {name: int(value) for name, value in row.items()}
