import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mediarepo.app.repository import jobs_of
from mediarepo.db.database import LeaseLostError, fenced
from mediarepo.db.tasks import JobRuns, Leases
from mediarepo.errors import InvalidParamError, UnavailableError
from mediarepo.model.tasks import TaskState
from mediarepo.services.leases import ClusterJobs, LeaseHolder
from mediarepo.services.tasks import TaskProgress, Tasks
from tests.support.installation import Installation, installed

HOUR_MS = 3_600_000


@pytest.fixture
async def two(own: Installation) -> AsyncIterator[list[Installation]]:
    async with installed(own.settings, migrate=False) as other:
        yield [own, other]


def fleet_of(own: Installation, lease_ms: int = 10_000) -> ClusterJobs:
    database = own.repository.foundation.database
    return ClusterJobs(lease_holder=LeaseHolder(leases=Leases(database), duration_ms=lease_ms), runs=JobRuns(database))


async def test_regular_work_is_done_once_by_all_processes_together(two: list[Installation]) -> None:
    done = []

    async def work() -> None:
        done.append(1)
        await asyncio.sleep(0.05)

    ran = await asyncio.gather(*(fleet_of(one).once("test", HOUR_MS, work) for one in two for _ in range(5)))

    assert len(done) == sum(ran) == 1


async def test_work_is_done_again_when_its_time_has_come(own: Installation) -> None:
    done = []

    async def work() -> dict[str, int]:
        done.append(1)
        return {"n": len(done)}

    cluster_jobs = fleet_of(own)
    await cluster_jobs.once("test", HOUR_MS, work)
    await cluster_jobs.once("test", HOUR_MS, work)
    await own.rows("UPDATE job_run SET started_ts = started_ts - 3600000")
    await cluster_jobs.once("test", HOUR_MS, work)
    (run,) = [one for one in await cluster_jobs.runs.read() if one.name == "test"]

    assert len(done) == 2
    assert (run.error, run.result) == (None, {"n": 2})
    assert run.finished_ts is not None


async def test_work_of_a_process_that_died_is_taken_over(two: list[Installation]) -> None:
    own, other = two
    await own.rows("INSERT INTO lease (name, expires_ts) VALUES ('job test', 1)")
    await own.rows("INSERT INTO job_run (name, started_ts) VALUES ('test', 9999999999999)")
    done = []

    async def work() -> None:
        done.append(1)

    assert await fleet_of(other).once("test", HOUR_MS, work)
    assert done == [1]


async def test_work_that_fails_says_why_and_is_tried_at_its_next_time(own: Installation) -> None:
    async def work() -> None:
        raise UnavailableError("S3 is away")

    cluster_jobs = fleet_of(own)
    with pytest.raises(UnavailableError):
        await cluster_jobs.once("test", HOUR_MS, work)
    (run,) = [one for one in await cluster_jobs.runs.read() if one.name == "test"]

    assert run.error == "S3 is away"
    assert not await cluster_jobs.once("test", HOUR_MS, work)


async def test_work_whose_lease_passed_on_is_ended_and_leaves_the_row_to_others(own: Installation) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        await own.rows("UPDATE lease SET fence = DEFAULT WHERE name = 'job test'")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    cluster_jobs = fleet_of(own, lease_ms=300)
    async with asyncio.timeout(30):
        with pytest.raises(LeaseLostError):
            await cluster_jobs.once("test", HOUR_MS, work)
    (run,) = [one for one in await cluster_jobs.runs.read() if one.name == "test"]

    assert ended.is_set()
    assert (run.finished_ts, run.error) == (None, None)
    assert await own.value("SELECT count(*) FROM lease WHERE name = 'job test'") == 1


async def test_nothing_is_written_once_a_lease_has_passed_on_but_until_then_it_cannot(two: list[Installation]) -> None:
    own, other = two
    database, done = own.repository.foundation.database, asyncio.Event()
    async with LeaseHolder(leases=Leases(database), duration_ms=60_000).acquire("job test") as lease:
        assert lease is not None
        with fenced(lease):
            async with database.transaction():
                await own.rows("SELECT 1")
                passing_on = asyncio.create_task(
                    other.rows("UPDATE lease SET fence = DEFAULT WHERE name = 'job test' RETURNING 1")
                )
                passing_on.add_done_callback(lambda _: done.set())
                async with asyncio.timeout(30):
                    while not await own.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                        await asyncio.sleep(0.01)
                assert not done.is_set()
            await passing_on
            with pytest.raises(LeaseLostError):
                async with database.transaction():
                    raise AssertionError("the lease is somebody else's")


def tasks_of(own: Installation, lease_ms: int = 10_000, **works: Any) -> Tasks:
    lease_holder = LeaseHolder(leases=Leases(own.repository.foundation.database), duration_ms=lease_ms)
    return replace(own.repository.administration.tasks, lease_holder=lease_holder, works=works)


async def queue(tasks: Tasks, kind: str, **arguments: object) -> int:
    return (await tasks.add(kind, arguments, created_by="@admin:x", homeserver=None)).task_id


@asynccontextmanager
async def running(tasks: Tasks) -> AsyncIterator[None]:
    runner = asyncio.create_task(tasks.run_waiting())
    try:
        yield
    finally:
        async with asyncio.timeout(30):
            await runner


async def test_a_task_is_done_once_and_its_result_kept(two: list[Installation]) -> None:
    done = []

    async def work(steps: TaskProgress) -> dict[str, Any]:
        done.append(steps.task.arguments)
        await steps.report({"half": True})
        await asyncio.sleep(0.05)
        return {"sum": 3}

    runners = [tasks_of(one, adding=work) for one in two]
    task_id = await queue(runners[0], "adding", a=1)
    await asyncio.gather(*(runner.run_waiting() for runner in runners))
    task = await runners[1].get(task_id)

    assert done == [{"a": 1}]
    assert (task.state, task.result, task.progress, task.attempts) == (TaskState.DONE, {"sum": 3}, {"half": True}, 1)
    assert task.finished_ts is not None


async def test_a_task_whose_process_dies_is_taken_up_where_it_was(two: list[Installation]) -> None:
    async def dies(steps: TaskProgress) -> dict[str, Any]:
        await steps.report({"reached": 5})
        await asyncio.Event().wait()
        return {}

    async def goes_on(steps: TaskProgress) -> dict[str, Any]:
        return {"from": steps.task.progress["reached"]}

    first, second = tasks_of(two[0], work=dies), tasks_of(two[1], work=goes_on)
    task_id = await queue(first, "work")
    doing = asyncio.create_task(first.run_waiting())
    async with asyncio.timeout(10):
        while not (await first.get(task_id)).progress:
            await asyncio.sleep(0.01)
    await second.run_waiting()
    held = (await first.get(task_id)).state
    await two[0].rows("UPDATE lease SET expires_ts = 1 WHERE name LIKE 'task %'")
    await second.run_waiting()
    doing.cancel()
    await asyncio.wait([doing])
    task = await first.get(task_id)

    assert held is TaskState.RUNNING
    assert (task.state, task.result, task.attempts) == (TaskState.DONE, {"from": 5}, 2)


async def test_a_late_runner_cannot_write_to_a_task_that_was_taken_over(own: Installation) -> None:
    refused = []

    async def late(steps: TaskProgress) -> dict[str, Any]:
        await own.rows("UPDATE lease SET fence = DEFAULT WHERE name = $1", steps.lease.name)
        try:
            await steps.report({"late": True})
        except LeaseLostError as exc:
            refused.append(exc)
            raise
        return {}

    tasks = tasks_of(own, late=late)
    task_id = await queue(tasks, "late")
    await tasks.run_waiting()
    task = await tasks.get(task_id)

    assert len(refused) == 1
    assert (task.state, task.progress) == (TaskState.RUNNING, {})


async def test_a_running_task_stops_at_its_next_step_when_cancelled(own: Installation) -> None:
    began, ended = asyncio.Event(), []

    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def work(steps: TaskProgress) -> dict[str, Any]:
        await steps.watch(endless(), lambda: {"at": 1})
        return {}

    tasks = tasks_of(own, work=work)
    task_id = await queue(tasks, "work")
    async with running(tasks):
        await began.wait()
        await tasks.cancel(task_id, "@admin:x")

    assert (await tasks.get(task_id)).state is TaskState.CANCELLED
    assert ended == [1]


async def test_a_queued_task_that_is_cancelled_never_begins(own: Installation) -> None:
    async def work(steps: TaskProgress) -> dict[str, Any]:
        raise AssertionError(steps)

    tasks = tasks_of(own, work=work)
    task_id = await queue(tasks, "work")
    cancelled = await tasks.cancel(task_id, "@admin:x")
    await tasks.run_waiting()

    assert (cancelled.state, cancelled.attempts) == (TaskState.CANCELLED, 0)
    assert (await tasks.get(task_id)).state is TaskState.CANCELLED


@pytest.mark.parametrize(
    ("error", "words"), [(InvalidParamError("no such store"), "no such store"), (KeyError("x"), "KeyError('x')")]
)
async def test_a_task_that_fails_says_why(own: Installation, error: Exception, words: str) -> None:
    async def work(_steps: TaskProgress) -> dict[str, Any]:
        raise error

    tasks = tasks_of(own, work=work)
    task_id = await queue(tasks, "work")
    await tasks.run_waiting()
    task = await tasks.get(task_id)

    assert (task.state, task.error) == (TaskState.FAILED, words)


async def test_a_task_that_kills_each_of_its_processes_is_given_up(own: Installation) -> None:
    async def work(steps: TaskProgress) -> dict[str, Any]:
        raise AssertionError(steps)

    tasks = tasks_of(own, work=work)
    task_id = await queue(tasks, "work")
    await own.rows("UPDATE task SET state = 'running', attempts = 5")
    await tasks.run_waiting()

    assert (await tasks.get(task_id)).state is TaskState.FAILED


async def test_kinds_of_tasks_that_there_are_not_are_refused(own: Installation) -> None:
    with pytest.raises(InvalidParamError, match="fsck, retention, retention_plan"):
        await queue(own.repository.administration.tasks, "nonsense")


async def test_a_check_of_the_bucket_runs_as_a_task(own: Installation) -> None:
    await own.upload(b"data")
    tasks = own.repository.administration.tasks
    task_id = await queue(tasks, "fsck")
    await tasks.run_waiting()
    task = await tasks.get(task_id)

    assert task.state is TaskState.DONE, task.error
    assert task.result is not None
    assert (task.result["stores"]["main"]["objects"], task.result["stores"]["main"]["rows"]) == (1, 1)


async def test_figures_tell_what_waits_and_what_was_found(own: Installation) -> None:
    await own.upload(b"data")
    await own.rows("UPDATE media SET state = 'trashed', trashed_ts = 9999999999999")
    backlog = next(job for job in jobs_of(own.repository) if job.name == "backlog")
    sweep = fleet_of(own)
    await sweep.once("sweep", HOUR_MS, lambda: asyncio.sleep(0, {"main": {"unknown": 3, "multiparts": 1}}))
    await backlog.run()
    text = (await own.get("/metrics")).body.decode()

    assert 'mediarepo_backlog{queue="trash"} 1.0' in text
    assert 'mediarepo_drift{kind="unknown",store="main"} 3.0' in text
    assert 'mediarepo_job_failed{name="sweep"} 0.0' in text
