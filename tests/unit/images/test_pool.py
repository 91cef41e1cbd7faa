import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.errors import LimitExceededError
from mediarepo.images.errors import PictureError
from mediarepo.images.worker_pool import Rendered, SourceBudget, WorkerPool
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from tests.pictures.drawn import corners, encoded, hostile, jpeg

SPECS = ThumbnailsConfig().specs
GOOD = jpeg(1000, 700)


class Studio:
    """A pool with its memory."""

    def __init__(self, **settings: object) -> None:
        self.config = ThumbnailsConfig.model_validate({"workers": 2} | settings)
        self.pool = WorkerPool(self.config)
        self.sources = SourceBudget(self.config)

    async def render(self, data: bytes) -> Rendered:
        async with self.sources.reserve(len(data)) as source:
            await source.write(data)
            return await self.pool.render(source, SPECS)


@pytest.fixture
async def studio() -> AsyncIterator[Studio]:
    made = Studio()
    async with made.pool:
        yield made


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def stopped_worker(studio: Studio) -> tuple[int, "asyncio.Task[Rendered]"]:
    """Start a worker, stop it in its tracks, and give it a job."""
    await studio.render(GOOD)
    (pid,) = studio.pool.pids
    os.kill(pid, signal.SIGSTOP)
    job = asyncio.create_task(studio.render(GOOD))
    while not studio.pool.busy:
        await asyncio.sleep(0.01)
    return pid, job


async def test_all_sizes_come_in_one_piece(studio: Studio) -> None:
    rendered = await studio.render(GOOD)

    assert {one.spec for one in rendered.thumbnails} == set(SPECS)
    for one in rendered.thumbnails:
        assert rendered.data[one.offset :][:3] == b"\xff\xd8\xff"
    assert sum(one.size_bytes for one in rendered.thumbnails) == len(rendered.data)


async def test_workers_know_nothing_of_the_servers_environment(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAREPO_SECRET", "of the server")
    await studio.render(GOOD)

    (pid,) = studio.pool.pids
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    status = Path(f"/proc/{pid}/status").read_text()
    opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    descriptors = [one for one in opened if "/libffi.so" not in one]  # a recent libffi holds itself open

    assert b"MEDIAREPO" not in environment
    assert {entry.split(b"=")[0] for entry in environment.split(b"\0") if entry} <= {b"PATH", b"LC_ALL"}
    assert "Seccomp:\t2" in status
    assert len(descriptors) <= 4, descriptors


@pytest.mark.parametrize("name", sorted(hostile()))
async def test_no_file_takes_the_pool_down(studio: Studio, name: str) -> None:
    results = await asyncio.gather(studio.render(hostile()[name]), studio.render(GOOD), return_exceptions=True)

    assert isinstance(results[0], Rendered | PictureError)
    assert isinstance(results[1], Rendered)
    assert isinstance(await studio.render(GOOD), Rendered)


async def test_a_worker_that_dies_costs_its_own_job_only(studio: Studio) -> None:
    pid, job = await stopped_worker(studio)
    other = await studio.render(GOOD)
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(PictureError) as refused:
        await job
    assert refused.value.reason == "worker_died"
    assert refused.value.reason.is_momentary
    assert other.thumbnails
    assert (await studio.render(GOOD)).thumbnails
    assert not exists(pid)


async def test_a_worker_leaves_it_to_the_server_when_to_end(studio: Studio) -> None:
    pid, job = await stopped_worker(studio)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        os.kill(pid, number)

    assert (await job).thumbnails
    assert studio.pool.pids == [pid]


async def test_processor_time_that_runs_out_is_the_files_doing(studio: Studio) -> None:
    pid, job = await stopped_worker(studio)
    os.kill(pid, signal.SIGXCPU)
    os.kill(pid, signal.SIGCONT)

    with pytest.raises(PictureError) as refused:
        await job
    assert refused.value.reason == "too_much_work"
    assert not refused.value.reason.is_momentary


async def test_a_worker_that_crashes_is_replaced(studio: Studio) -> None:
    pid, job = await stopped_worker(studio)
    os.kill(pid, signal.SIGSEGV)
    os.kill(pid, signal.SIGCONT)

    with pytest.raises(PictureError):
        await job
    assert (await studio.render(GOOD)).thumbnails


async def test_a_worker_that_hangs_is_killed() -> None:
    studio = Studio(job_timeout_ms=2_000)
    async with studio.pool:
        pid, job = await stopped_worker(studio)

        with pytest.raises(PictureError) as refused:
            await job
        assert refused.value.reason == "timed_out"
        assert not exists(pid)
        assert (await studio.render(GOOD)).thumbnails


async def test_a_picture_that_needs_too_much_memory_is_refused() -> None:
    studio = Studio(worker_memory_bytes=256 * 1024 * 1024, max_pixels_webp=50_000_000)
    async with studio.pool:
        with pytest.raises(PictureError) as refused:
            await studio.render(encoded(corners(6000, 5000), "WEBP", method=0, quality=10))
        assert refused.value.reason in {"out_of_memory", "corrupt", "worker_died"}
        assert (await studio.render(GOOD)).thumbnails


async def test_a_worker_retires_after_its_share_of_jobs() -> None:
    studio = Studio(jobs_per_worker=2, workers=1)
    async with studio.pool:
        seen = []
        for _ in range(5):
            await studio.render(GOOD)
            seen += studio.pool.pids
        assert len(set(seen)) >= 2
        assert sum(exists(pid) for pid in set(seen)) <= 1


async def test_too_many_jobs_are_refused_for_now() -> None:
    studio = Studio(workers=1, queue_limit=1)
    async with studio.pool:
        pid, job = await stopped_worker(studio)
        waiting = asyncio.create_task(studio.render(GOOD))
        while not studio.pool.waiting:
            await asyncio.sleep(0.01)

        with pytest.raises(LimitExceededError) as refused:
            await studio.render(GOOD)
        assert refused.value.retry_after_s
        os.kill(pid, signal.SIGCONT)
        assert (await job).thumbnails
        assert (await waiting).thumbnails


async def test_a_job_that_has_waited_too_long_is_refused_for_now() -> None:
    studio = Studio(workers=1, queue_timeout_ms=100)
    async with studio.pool:
        pid, job = await stopped_worker(studio)

        with pytest.raises(LimitExceededError) as refused:
            await studio.render(GOOD)
        assert refused.value.retry_after_s
        os.kill(pid, signal.SIGCONT)
        assert (await job).thumbnails
        assert (await studio.render(GOOD)).thumbnails


async def test_leaving_the_pool_leaves_nobody_behind() -> None:
    studio = Studio()
    async with studio.pool:
        await asyncio.gather(studio.render(GOOD), studio.render(GOOD))
        pids = studio.pool.pids
        assert pids
    assert not any(exists(pid) for pid in pids)


async def test_a_job_that_is_given_up_ends_its_worker(studio: Studio) -> None:
    pid, job = await stopped_worker(studio)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    while exists(pid):
        await asyncio.sleep(0.01)

    assert (await studio.render(GOOD)).thumbnails


async def test_sources_wait_for_memory_in_order_and_give_it_back() -> None:
    budget = SourceBudget(ThumbnailsConfig(memory_budget_bytes=100, max_source_bytes=100, queue_limit=2))
    order = []

    async def use(name: str, size: int) -> None:
        async with budget.reserve(size) as source:
            await source.write(bytes(size))
            order.append(name)

    async with budget.reserve(60):
        tasks = [asyncio.create_task(use("large", 100))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(use("small", 10)))
        await asyncio.sleep(0)
        with pytest.raises(LimitExceededError):
            await use("too many", 1)
        assert order == []
    await asyncio.gather(*tasks)

    assert order == ["large", "small"]


async def test_a_source_that_has_waited_too_long_is_refused_and_holds_up_nobody() -> None:
    budget = SourceBudget(ThumbnailsConfig(memory_budget_bytes=100, max_source_bytes=100, queue_timeout_ms=100))

    async def use(size: int) -> int:
        async with budget.reserve(size):
            return size

    async with budget.reserve(60):
        large = asyncio.create_task(use(100))
        await asyncio.sleep(0.05)
        small = asyncio.create_task(use(10))
        with pytest.raises(LimitExceededError):
            await large
        assert await small == 10
    assert await use(100) == 100


async def test_memory_freed_while_a_waiting_job_is_being_given_up_goes_to_the_next() -> None:
    budget, leave = SourceBudget(ThumbnailsConfig(memory_budget_bytes=10, max_source_bytes=10)), asyncio.Event()

    async def use() -> None:
        async with budget.reserve(10):
            await leave.wait()

    lease_holder, given_up, next_one = [asyncio.create_task(use()) for _ in range(3)]
    await asyncio.sleep(0.01)
    leave.set()
    given_up.cancel()
    results = await asyncio.gather(lease_holder, given_up, next_one, return_exceptions=True)

    assert [type(result) for result in results] == [type(None), asyncio.CancelledError, type(None)]
    assert budget._free == 10


async def test_a_source_takes_no_more_than_was_reserved() -> None:
    budget = SourceBudget(ThumbnailsConfig())
    async with budget.reserve(3) as source:
        await source.write(b"abc")
        with pytest.raises(ValueError, match="larger"):
            await source.write(b"d")
        source.seal()
        with pytest.raises(PermissionError):
            os.write(source.fd, b"x")


def test_the_specs_sizes_are_the_default() -> None:
    crop, scale = ThumbnailMethod.CROP, ThumbnailMethod.SCALE
    assert [
        ThumbnailSpec(32, 32, crop),
        ThumbnailSpec(96, 96, crop),
        ThumbnailSpec(320, 240, scale),
        ThumbnailSpec(640, 480, scale),
        ThumbnailSpec(800, 600, scale),
    ] == SPECS
