"""Server processes that are killed, stopped and started again, and what stands before them."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
_START_S, _STOP_S = 120, 90
_NGINX = """
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    {spools}
    upstream fleet {{ {servers} }}
    server {{
        listen 127.0.0.1:{port};
        include {folder}/mediarepo.conf;
        include {folder}/mediarepo-admin.conf;
    }}
}}
"""


class Zygote:
    """The program that servers are forked from."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asking = asyncio.Lock()

    async def start(self, words: list[str], output: Path) -> int:
        """Start a command; gives its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._asking:
            self._process.stdin.write(json.dumps([words, str(output)]).encode() + b"\n")
            return int(await self._process.stdout.readline())


@asynccontextmanager
async def zygote() -> AsyncIterator[Zygote]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storm.zygote"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield Zygote(process)
    finally:
        process.kill()
        await process.wait()


@dataclass
class Server:
    """`mediarepo serve`; whoever ends it, it is started again while `wanted`."""

    name: str
    url: str
    config: Path
    zygote: Zygote
    pid: int = 0
    starts: int = 0
    wanted: bool = True
    paused: bool = False
    log: Path = field(default=Path())

    def lives(self) -> bool:
        return self.pid > 0 and Path(f"/proc/{self.pid}").exists()

    async def keep(self) -> None:
        """Start it whenever it is not there."""
        self.log = self.config.with_suffix(".log")
        while self.wanted:
            if not self.lives():
                self.pid = await self.zygote.start(["serve", "-c", str(self.config)], self.log)
                self.starts += 1
            await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False: there was nobody."""
        if not self.lives():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def workers(self) -> list[int]:
        """Find its child processes."""
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    async def is_ready(self, session: aiohttp.ClientSession) -> bool:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(f"{self.url}/health/ready", timeout=aiohttp.ClientTimeout(10)) as answer:
                return answer.status == 200
        return False

    async def until_ready(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(_START_S):
            while not await self.is_ready(session):
                await asyncio.sleep(0.1)

    async def stop(self) -> bool:
        """End it in good order; False: it had to be killed."""
        self.wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self.lives():
                    await asyncio.sleep(0.05)
                return True
        self.signal(signal.SIGKILL)
        return False


def configured(document: dict[str, Any], folder: Path, name: str) -> tuple[Path, str]:
    """Write a server's configuration; gives the file and the server's address."""
    address = f"127.0.0.1:{free_port()}"
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**document, "listen": {**document["listen"], "addresses": [address]}}))
    return path, f"http://{address}"


async def command(*words: str, config: Path, timeout_s: float = 300) -> tuple[int, str]:
    """Run a command to its end; gives its status and all it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediarepo", *words, "--config", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        return 124, f"{words[0]} did not end within {timeout_s} s"
    return process.returncode or 0, said.decode("utf-8", "replace")


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/bin")


@asynccontextmanager
async def nginx(servers: list[Server], folder: Path) -> AsyncIterator[str]:
    """Run nginx before the servers, with the configuration that is handed to operators."""
    port = free_port()
    for name in ("mediarepo.conf", "mediarepo-admin.conf"):
        text = (ROOT / "deploy" / "nginx" / name).read_text()
        (folder / name).write_text(text.replace("http://127.0.0.1:8000", "http://fleet"))
    spools = " ".join(
        f"{one}_temp_path {folder}/spool-{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    upstream = " ".join(f"server {one.url.removeprefix('http://')} fail_timeout=1s;" for one in servers)
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(folder=folder, servers=upstream, port=port, spools=spools, user=user))
    process = await asyncio.create_subprocess_exec(
        *(str(program("nginx")), "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
