"""Several server processes on one address: who answers, what is shown of them, and what happens when one ends."""

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import document_for
from tests.support.ports import free_port
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.timeout(300)

LIVE = "/health/live"
ANSWERED = re.compile(
    r'mediarepo_requests_total\{endpoint="/health/live",method="GET",status="200",worker="(\d)"\} (\S+)'
)


@pytest.fixture
def document(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> dict[str, Any]:
    return document_for(postgres, s3, listen={"workers": 2}, log={"format": "json"})


async def workers_of(server: Serving, count: int) -> dict[int, int]:
    """Return the process ids of the workers that started last, by number, once so many were started in all."""
    return {one["worker"]: one["pid"] for one in await server.logs("worker_started", count)}


async def metrics_of(server: Serving) -> str:
    async with server.session.get(f"{server.url}/metrics") as answer:
        return await answer.text()


async def answered_by(server: Serving) -> dict[str, float]:
    """Say how many requests each worker answered."""
    return {worker: float(count) for worker, count in ANSWERED.findall(await metrics_of(server))}


async def keep_asking_until_all_answer(server: Serving) -> None:
    """Open connections, many at a time, until both workers have taken some."""
    async with asyncio.timeout(120):
        while set(await answered_by(server)) != {"0", "1"}:
            await asyncio.gather(*(server.status(LIVE) for _ in range(50)))


async def ended(pid: int) -> None:
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.02)


async def test_all_workers_answer_and_one_page_shows_them_all(document: dict[str, Any], tmp_path: Path) -> None:
    async with serving(document, tmp_path) as server:
        await keep_asking_until_all_answer(server)
        media_id = await server.upload(b"from whichever worker")
        found = [await server.download(media_id) for _ in range(5)]
        page = await metrics_of(server)

    assert found == [b"from whichever worker"] * 5
    types = [line for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    series = [line for line in page.splitlines() if not line.startswith("#")]
    assert all('worker="' in line for line in series)
    assert len({line.rpartition(" ")[0] for line in series}) == len(series)


async def test_a_worker_that_dies_is_started_again_and_the_others_go_on(
    document: dict[str, Any], tmp_path: Path
) -> None:
    async with serving(document, tmp_path) as server:
        first = await workers_of(server, 2)
        os.kill(first[1], signal.SIGKILL)
        told = (await server.logs("worker_ended"))[0]
        meanwhile = [await server.status(LIVE) for _ in range(20)]
        second = await workers_of(server, 3)
        await keep_asking_until_all_answer(server)

    assert (told["worker"], told["pid"], told["reason"], told["level"]) == (1, first[1], "signal SIGKILL", "error")
    assert meanwhile == [200] * 20
    assert (second[0] == first[0], second[1] == first[1]) == (True, False)


async def test_a_stop_drains_all_workers_and_refuses_new_connections(document: dict[str, Any], tmp_path: Path) -> None:
    document["listen"]["shutdown_timeout_ms"] = 60_000
    may_end = asyncio.Event()

    async def slowly() -> Any:
        yield b"first half, "
        await may_end.wait()
        yield b"second half"

    async with serving(document, tmp_path) as server:
        pids = await workers_of(server, 2)
        uploads = [asyncio.create_task(server.upload(slowly())) for _ in range(6)]
        async with asyncio.timeout(60):
            while (await server.in_use()).get("requests", 0) < 6:
                await asyncio.sleep(0.05)
        server.process.terminate()
        await server.refuses_connections()
        may_end.set()
        media_ids = await asyncio.gather(*uploads)
        status = await server.process.wait()
        gone = [not Path(f"/proc/{pid}").exists() for pid in pids.values()]

    assert (len(set(media_ids)), status, gone) == (6, 0, [True, True])


async def test_a_reload_reaches_all_workers(document: dict[str, Any], tmp_path: Path) -> None:
    async with serving(document, tmp_path) as server:
        await workers_of(server, 2)
        server.reload({**document, "log": {"format": "json", "access": True}})
        reloaded = await server.logs("config_reloaded", 2)

    assert [one["settings"] for one in reloaded] == [["log.access"]] * 2


async def test_no_worker_outlives_a_supervisor_that_is_killed(document: dict[str, Any], tmp_path: Path) -> None:
    async with serving(document, tmp_path) as server:
        pids = await workers_of(server, 2)
        await server.kill()
        for pid in pids.values():
            await ended(pid)
        assert await server.in_use() == {}


async def ran(document: dict[str, Any], folder: Path) -> tuple[int, str]:
    """Serve until it ends by itself; gives the exit status and what was said."""
    config = folder / "refused.yaml"
    config.write_text(yaml.safe_dump(document))
    command = (sys.executable, "-m", "mediarepo", "serve", "-c", str(config))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(120):
        _, errors = await process.communicate()
    return process.returncode or 0, errors.decode()


async def test_what_keeps_a_worker_from_starting_ends_the_server(document: dict[str, Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        document["listen"]["addresses"] = [f"127.0.0.1:{taken.getsockname()[1]}"]
        status, errors = await ran(document, tmp_path)
    document["listen"]["addresses"] = [f"127.0.0.1:{free_port()}"]
    document["homeservers"][0]["signing_key_file"] = str(tmp_path / "nothing.key")
    keyless, words = await ran(document, tmp_path)

    assert (status, "cannot listen on 127.0.0.1" in errors, "Traceback" in errors) == (1, True, False)
    assert (keyless, "nothing.key" in words, "Traceback" in words) == (1, True, False)


async def test_workers_share_unix_sockets(document: dict[str, Any], tmp_path: Path) -> None:
    path, metrics = tmp_path / "clients.sock", tmp_path / "metrics.sock"
    config = tmp_path / "unix.yaml"
    document["listen"] |= {"addresses": [f"unix:{path}"], "metrics_address": f"unix:{metrics}"}
    config.write_text(yaml.safe_dump(document))
    command = (sys.executable, "-m", "mediarepo")
    assert await (await asyncio.create_subprocess_exec(*command, "migrate", "-c", str(config))).wait() == 0
    process = await asyncio.create_subprocess_exec(*command, "serve", "-c", str(config))
    try:
        async with asyncio.timeout(60):
            while await status_at(metrics, "/health/ready") != 200:
                await asyncio.sleep(0.05)
        answers = [await status_at(path, "/_matrix/client/versions") for _ in range(5)]
        apart = await status_at(path, "/metrics"), await status_at(metrics, "/metrics")
    finally:
        process.terminate()
        status = await process.wait()

    assert (answers, apart, status) == ([404] * 5, (404, 200), 0)


async def status_at(path: Path, target: str) -> int:
    """Ask on a connection of its own; 0 while nobody listens."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.get(f"http://media.example{target}") as answer,
        ):
            return answer.status
    except aiohttp.ClientError:
        return 0
