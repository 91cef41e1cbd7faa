"""The server's side of the sandbox: what must stand, what a child may say, and how much of it is logged."""

import asyncio
import contextlib
import io
import json
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from structlog.testing import capture_logs

from mediarepo.config.media import ThumbnailsConfig, ThumbnailSize
from mediarepo.config.server import SandboxEnforcement
from mediarepo.errors import UnavailableError
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from mediarepo.model.media import ThumbnailMethod
from mediarepo.sandbox.confinement import Confinement, create_memfd, discard
from mediarepo.sandbox.process import SandboxedProcess, SandboxLimits, SandboxPolicy
from tests.pictures.drawn import jpeg

ALL = {"seccomp": True, "landlock": True, "kernel_seccomp": True, "kernel_landlock": True}
LIMITS = SandboxLimits(memory_bytes=1 << 30, cpu_limit_s=5, max_jobs=10)


@pytest.mark.parametrize(
    ("stands", "enforcements"),
    [
        ({}, "strict available permissive"),
        ({"landlock": False}, "permissive"),
        ({"seccomp": False}, "permissive"),
        ({"landlock": False, "kernel_landlock": False}, "available permissive"),
        ({"seccomp": False, "kernel_seccomp": False}, "available permissive"),
        (dict.fromkeys(ALL, False), "available permissive"),
    ],
)
def test_a_process_works_only_behind_what_must_stand(stands: dict[str, bool], enforcements: str) -> None:
    confinement = Confinement(**(ALL | stands))

    accepted = {one for one in SandboxEnforcement if SandboxPolicy(enforcement=one).accepts(confinement)}

    assert accepted == set(enforcements.split())


async def test_what_stands_is_told_and_too_little_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Confinement] = []
    monkeypatch.setattr(SandboxPolicy, "accepts", lambda *_: False)
    policy = SandboxPolicy(enforcement=SandboxEnforcement.STRICT, on_started=told.append)
    process = SandboxedProcess("mediarepo.previews.worker", {}, limits=LIMITS, policy=policy)
    try:
        with pytest.raises(UnavailableError), capture_logs() as logs:
            await process.started()
    finally:
        await process.end()

    assert len(told) == 1
    assert [line["log_level"] for line in logs if line["event"] == "sandbox_incomplete"] == ["error"]


async def render(pool: WorkerPool, config: ThumbnailsConfig, data: bytes) -> None:
    async with SourceBudget(config).reserve(len(data)) as source:
        await source.write(data)
        await pool.render(source, config.specs)


def group_3_tiff(width: int, height: int) -> bytes:
    """A TIFF whose every row is broken, so that libtiff complains of each."""
    good = io.BytesIO()
    Image.new("1", (width, height)).save(good, "TIFF", compression="group3")
    data = bytearray(good.getvalue())
    start = data.index(b"\x00\x10\x01") if b"\x00\x10\x01" in data else 8
    data[start : start + 2000] = os.urandom(2000)
    return bytes(data)


async def test_a_decoders_complaints_are_cut_and_quoted(capfd: pytest.CaptureFixture[str]) -> None:
    config = ThumbnailsConfig(workers=1)
    data = group_3_tiff(8, 20_000)
    async with WorkerPool(config) as pool:
        with capture_logs() as logs:
            try:
                await render(pool, config, data)
            except PictureError as exc:
                assert exc.reason in set(Reason)  # noqa: PT017 - a broken file may be refused, or shown in part

    complaints = [line["text"] for line in logs if line["event"] == "sandbox_stderr"]
    assert len(complaints) == 1
    assert complaints[0].isascii()
    assert "\n" not in complaints[0]
    assert len(complaints[0]) < 3000
    assert "TIFF" not in capfd.readouterr().err


SPEC = [32, 32, "crop", False]
MADE = {
    "spec": SPEC,
    "content_type": "image/jpeg",
    "width": 32,
    "height": 32,
    "offset": 0,
    "size_bytes": 10,
    "own_bytes": False,
}


@pytest.mark.parametrize(
    "answer",
    [
        {"made": [MADE | {"content_type": "text/html"}]},
        {"made": [MADE | {"content_type": "image/svg+xml"}]},
        {"made": [MADE | {"spec": [33, 32, "crop", False]}]},
        {"made": [MADE | {"spec": [32, 32, "nonsense", False]}]},
        {"made": [MADE | {"offset": 5}]},
        {"made": [MADE | {"size_bytes": 10**12}]},
        {"made": [MADE | {"size_bytes": -1}]},
        {"made": [MADE | {"width": 0}]},
        {"made": [MADE | {"extra": 1}]},
        {"made": "all"},
        {"refused": "because"},
        {"refused": ["corrupt"]},
        {},
    ],
)
async def test_what_a_worker_must_not_say_is_not_believed(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answered(*_: object, **__: object) -> dict[str, Any]:
        return answer

    config = ThumbnailsConfig(workers=1)
    async with WorkerPool(config) as pool:
        await render(pool, config, jpeg(100, 70))
        (pid,) = pool.pids
        monkeypatch.setattr(SandboxedProcess, "ask", answered)
        with pytest.raises(PictureError, match="worker_died"):
            await render(pool, config, jpeg(100, 70))

        assert pid not in pool.pids


SIZE = ThumbnailSize(width=32, height=32, method=ThumbnailMethod.CROP)


@contextlib.contextmanager
def wired(pool: WorkerPool, channel: socket.socket) -> Iterator[None]:
    """Let the only worker's messages come over another channel."""
    (worker,) = pool._idle
    process = worker._process
    original, process._channel = process._channel, channel
    with original:
        yield


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"1",
        b"null",
        b'"refused"',
        b"[]",
        b'{"made": NaN}',
        b'{"made": [' + b"[" * 30_000,
        b'{"made": ' + b"1" * 10_000 + b"}",
        b'{"refused": "' + b"x" * 60_000 + b'"}',
        json.dumps({"made": [MADE | {"size_bytes": 0}]}).encode(),
        json.dumps({"made": [MADE | {"size_bytes": 11}]}).encode(),
        json.dumps({"made": [MADE | {"own_bytes": True}]}).encode(),
        json.dumps({"made": [MADE, MADE | {"offset": 10}]}).encode(),
        json.dumps({"made": []}).encode(),
    ],
)
async def test_whatever_a_worker_sends_it_costs_its_own_job_only(
    message: bytes,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    config = ThumbnailsConfig(workers=1, sizes=[SIZE])
    async with WorkerPool(config) as pool:
        await render(pool, config, jpeg(100, 70))
        with theirs, wired(pool, ours):
            theirs.send(message)
            with pytest.raises(PictureError, match="worker_died"):
                await render(pool, config, jpeg(100, 70))
        assert pool.pids == []
        await render(pool, config, jpeg(100, 70))


async def test_a_worker_that_takes_no_jobs_is_ended() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 1000)
    config = ThumbnailsConfig(workers=1)
    async with WorkerPool(config) as pool:
        await render(pool, config, jpeg(100, 70))
        with theirs, wired(pool, ours), pytest.raises(PictureError, match="worker_died"):
            await render(pool, config, jpeg(100, 70))
        assert pool.pids == []


async def test_processor_time_is_limited_for_good() -> None:
    process = SandboxedProcess("mediarepo.previews.worker", {}, limits=LIMITS, policy=SandboxPolicy())
    try:
        await process.started()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
    finally:
        await process.end()

    soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max cpu time"))
    assert int(soft) <= int(hard) <= 60 + LIMITS.max_jobs * (LIMITS.cpu_limit_s + 1)


def test_a_result_that_is_done_with_takes_no_memory_whoever_keeps_it_open() -> None:
    result = create_memfd("result")
    kept = os.dup(result)
    os.pwrite(result, b"x" * 1_000_000, 0)
    discard(result)
    try:
        assert os.fstat(kept).st_blocks == 0
        with pytest.raises(PermissionError):
            os.pwrite(kept, b"x", 0)
    finally:
        os.close(kept)


def descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


@contextlib.contextmanager
def at_most_more(count: int) -> Iterator[None]:
    """Let this process open only so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probes = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    for probe in probes:
        os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probes[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
async def test_a_process_that_cannot_start_for_want_of_descriptors_leaves_none_open(count: int) -> None:
    before = descriptors()
    with at_most_more(count), pytest.raises(OSError, match="Too many open files"):
        SandboxedProcess("mediarepo.previews.worker", {}, limits=LIMITS, policy=SandboxPolicy())

    assert descriptors() == before


async def test_a_process_that_does_not_end_in_time_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    process = SandboxedProcess("mediarepo.previews.worker", {}, limits=LIMITS, policy=SandboxPolicy())
    await process.started()
    monkeypatch.setattr("mediarepo.sandbox.process._END_TIMEOUT_S", 0)
    with contextlib.suppress(subprocess.TimeoutExpired):
        await process.end()

    assert descriptors() == before
    await asyncio.to_thread(process._process.wait, 30)
