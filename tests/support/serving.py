"""`mediarepo serve` as a process of its own, which can be measured and killed."""

import asyncio
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from mediarepo.config.settings import Settings
from tests.support.idle import idle, watched
from tests.support.installation import SERVER_NAME, TOKEN
from tests.support.ports import free_port
from tests.support.schemas import make_schema


@dataclass
class Serving:
    """A running server process."""

    url: str
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    config: Path
    log_file: Path

    def reload(self, document: dict[str, Any] | str) -> None:
        """Write another configuration, or a text that may be none, and ask for it to be read."""
        if isinstance(document, dict):
            listen = yaml.safe_load(self.config.read_text())["listen"]["addresses"]
            document = yaml.safe_dump({**document, "listen": {**document["listen"], "addresses": listen}})
        fresh = self.config.with_suffix(".new")
        fresh.write_text(document)
        fresh.replace(self.config)  # at once, as a careful operator does: the server may read it at any time
        self.process.send_signal(signal.SIGHUP)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Read the log's lines of an event; the log's format must be json."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    async def logs(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Return an event's lines once there are so many."""
        async with asyncio.timeout(60):
            while len(found := self.logged(event)) < count:
                await asyncio.sleep(0.02)
        return found

    async def status(self, path: str, *, headers: dict[str, str] | None = None, token: str | None = None) -> int:
        """Ask on a connection of its own; gives the status."""
        sent = {**self.headers, **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}{path}", headers=sent) as answer:
            await answer.read()
            return answer.status

    async def answers(self, path: str, status: int) -> None:
        """Return once a path is answered with this status."""
        async with asyncio.timeout(60):
            while await self.status(path) != status:
                await asyncio.sleep(0.02)

    @property
    def headers(self) -> dict[str, str]:
        return {"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}

    async def upload(self, data: Any, *, expect100: bool = False) -> str:
        """Upload; with `expect100`, nothing of the body is asked for before the server handles the request."""
        data = io.BytesIO(data) if isinstance(data, bytes) else data
        url = f"{self.url}/_matrix/media/v3/upload"
        async with self.session.post(url, data=data, headers=self.headers, expect100=expect100) as answer:
            assert answer.status == 200, await answer.text()
            uri: str = (await answer.json())["content_uri"]
            return uri.rpartition("/")[2]

    async def download(self, media_id: str) -> bytes:
        url = f"{self.url}/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}"
        async with self.session.get(url, headers=self.headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    def pids(self) -> list[int]:
        """The server's process id and those of its workers."""
        return [self.process.pid, *_children(self.process.pid)]

    def memory_bytes(self) -> int:
        """Proportional set size of the process tree; its memfds are part of it only while mapped, so they are added."""
        return sum(_pss(pid) + _memfds(pid) for pid in self.pids())

    async def shows(self, metric: str) -> None:
        """Return once a line stands in the metrics."""
        async with asyncio.timeout(60):
            while True:
                async with self.session.get(f"{self.url}/metrics") as answer:
                    if metric in (await answer.text()).splitlines():
                        return
                await asyncio.sleep(0.01)

    async def in_use(self) -> dict[str, float]:
        """Read what the server holds; nothing when it has ended, or stopped listening."""
        found: dict[str, float] = {}
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
                for line in (await answer.text()).splitlines():
                    if line.startswith("mediarepo_in_use{"):
                        name, _, number = line.rpartition(" ")
                        resource = name.partition('resource="')[2].partition('"')[0]
                        found[resource] = found.get(resource, 0) + float(number)
        except aiohttp.ClientError:
            return {}
        return found

    async def refuses_connections(self) -> None:
        """Return once the server stops, and takes no new connection any more."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, int(port))
                except ConnectionRefusedError:
                    return
                writer.close()
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def serving(document: dict[str, Any], folder: Path, *, migrated: bool = False) -> AsyncIterator[Serving]:
    """Migrate, unless that was done, and serve with a configuration; the process is gone afterwards in any case."""
    url = f"127.0.0.1:{free_port()}"
    document = {**document, "listen": {**document["listen"], "addresses": [url]}}
    config = folder / f"config-{url.rpartition(':')[2]}.yaml"
    config.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "mediarepo"]
    if not migrated:
        await make_schema(Settings.model_validate(document).database)
    log_file = folder / "server.log"
    with log_file.open("wb") if document.get("log", {}).get("format") == "json" else nullcontext() as log:
        process = await asyncio.create_subprocess_exec(*command, "serve", "-c", str(config), stderr=log)
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
            await _until_ready(session, f"http://{url}", process)
            running = Serving(f"http://{url}", process, session, config, log_file)
            with watched(running.in_use):
                yield running
        if process.returncode is None:
            await idle(running.in_use)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _until_ready(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60):
        while process.returncode is None:
            try:
                async with session.get(f"{url}/health/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError("the server did not start")


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _memfds(pid: int) -> int:
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "memfd:" in str(link.readlink()):
                total += link.stat().st_blocks * 512
        except OSError:
            continue
    return total
