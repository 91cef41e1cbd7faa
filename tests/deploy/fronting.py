"""The real reverse proxies, with the configuration that is handed to operators, before a mediarepo and a homeserver."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from tests.support.ports import free_port

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NGINX_SPOOLS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    {spools}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{http2_port} http2;
        include {folder}/mediarepo.conf;
        include {folder}/mediarepo-admin.conf;
        location / {{
            proxy_pass {homeserver};
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Front:
    """A running proxy."""

    name: str
    url: str
    http2_url: str
    pid: int
    folder: Path

    def spooled(self) -> list[str]:
        """Name the files below its folder that the proxy holds open, deleted ones too."""
        opened = [str(link.readlink()) for link in Path(f"/proc/{self.pid}/fd").iterdir() if link.is_symlink()]
        return [name for name in opened if name.startswith(str(self.folder)) and not name.endswith(".log")]


@asynccontextmanager
async def fronted(name: str, folder: Path, mediarepo: str, homeserver: str) -> AsyncIterator[Front]:
    """Run "nginx" or "caddy" before the two addresses; skips where it is not installed."""
    folder = folder / name
    folder.mkdir(exist_ok=True)
    port, http2_port = free_port(), free_port()
    configure = {"nginx": _nginx, "caddy": _caddy}[name]
    arguments = configure(folder, (port, http2_port), mediarepo, homeserver)
    async with running_proxy(name, arguments, folder, port) as pid:
        yield Front(name, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{http2_port}", pid, folder)


@asynccontextmanager
async def running_proxy(name: str, arguments: list[str], folder: Path, port: int) -> AsyncIterator[int]:
    """Run "nginx" or "caddy" with its files in a folder until it listens; gives its pid, skips where it is missing."""
    program = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed here")
    homes = {one: str(folder) for one in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    with (folder / "proxy.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=homes, cwd=folder
        )
    try:
        await _until_listening(process, port, folder / "proxy.log")
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _nginx(folder: Path, ports: tuple[int, int], mediarepo: str, homeserver: str) -> list[str]:
    for name in ("mediarepo.conf", "mediarepo-admin.conf"):
        snippet = (DEPLOY / "nginx" / name).read_text()
        assert snippet.count("http://127.0.0.1:8000") == 1
        (folder / name).write_text(snippet.replace("http://127.0.0.1:8000", mediarepo))
    return nginx_arguments(folder, NGINX, port=ports[0], http2_port=ports[1], homeserver=homeserver)


def nginx_arguments(folder: Path, configuration: str, **places: object) -> list[str]:
    """Write nginx's configuration, with all it writes in the folder; gives its arguments."""
    spools = " ".join(f"{one}_temp_path {folder}/{one};" for one in NGINX_SPOOLS)
    (folder / "nginx.conf").write_text(configuration.format(folder=folder, spools=spools, **places))
    return ["-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def _caddy(folder: Path, ports: tuple[int, int], mediarepo: str, homeserver: str) -> list[str]:
    config = (DEPLOY / "caddy" / "Caddyfile").read_text()
    for old, new in (
        ("matrix.example.org {", f"http://:{ports[0]}, http://:{ports[1]} {{\n\tbind 127.0.0.1"),
        ("127.0.0.1:8000", urlsplit(mediarepo).netloc),
        ("127.0.0.1:8008", urlsplit(homeserver).netloc),
    ):
        assert config.count(old) == 1
        config = config.replace(old, new)
    (folder / "Caddyfile").write_text(
        "{\n\tadmin off\n\tauto_https off\n\tservers {\n\t\tprotocols h1 h2c\n\t}\n}\n" + config
    )
    return ["run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


async def _until_listening(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(30):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
    raise AssertionError(f"the proxy did not start: {log.read_text()}")


@dataclass
class EverythingElse:
    """A homeserver that only notes what reaches it."""

    url: str = ""
    targets: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.targets.append(request.raw_path)
        self.hosts.append(request.headers["Host"])
        return web.json_response({"homeserver": True})


@asynccontextmanager
async def everything_else() -> AsyncIterator[EverythingElse]:
    """Run such a homeserver."""
    homeserver, app = EverythingElse(), web.Application()
    app.router.add_route("*", "/{path:.*}", homeserver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    homeserver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield homeserver
    finally:
        await runner.cleanup()


class Relay:
    """Stands before a server and tells when a marker has come by on its way there."""

    def __init__(self, server_url: str, marker: bytes) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname, parts.port)
        self._marker = marker
        self._tasks: set[asyncio.Task[None]] = set()
        self.saw_marker = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        try:
            await asyncio.gather(self._pipe(reader, server_writer), self._pipe(server_reader, writer))
        finally:
            writer.close()
            server_writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = b""
        while data := await reader.read(65536):
            seen = seen[-len(self._marker) :] + data
            if self._marker in seen:
                self.saw_marker.set()
            writer.write(data)
            await writer.drain()
        writer.write_eof()
