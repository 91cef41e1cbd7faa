"""The programs of docker-compose.yml without containers: the same start scripts, commands and configuration."""

import asyncio
import os
import secrets
import signal
import socket
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from mediarepo.embedded.postgres import EmbeddedPostgres
from tests.pictures.drawn import jpeg

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SCRIPTS = sysconfig.get_path("scripts")
READ_ONLY = """
while read -r _ place _; do mount -o remount,bind,ro "$place" 2>/dev/null || true; done < /proc/self/mounts
for place in "$PWD" "$TMPDIR" /tmp /var/tmp /dev/shm; do
    if touch "$place/mediarepo-was-here" 2>/dev/null; then echo "$place is writable" >&2; exit 99; fi
done
exec "$@"
"""


@asynccontextmanager
async def program(
    *command: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in a group of its own; it is gone afterwards, with its children."""
    process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=cwd, start_new_session=True)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(url: str, process: asyncio.subprocess.Process, **arguments: Any) -> None:
    """Wait for a 200."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while process.returncode is None:
            try:
                async with session.get(url, **arguments) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError("the server did not start")


@dataclass(frozen=True)
class Backends:
    """A database and an S3 server, and the configuration that names both."""

    document: dict[str, Any]
    token: str

    def written(self, folder: Path, **listen: Any) -> Path:
        """Write the configuration with other addresses to listen on."""
        path = folder / "config.yaml"
        document = {**self.document, "listen": {**self.document["listen"], **listen}}
        path.write_text(yaml.safe_dump(document))
        return path


async def check_serving(url: str, token: str) -> None:
    """Upload, download and make a thumbnail."""
    picture = jpeg(640, 480)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        async with session.post(
            "/_matrix/media/v3/upload", data=picture, headers={"Content-Type": "image/jpeg"}
        ) as answer:
            assert answer.status == 200, await answer.text()
            media = (await answer.json())["content_uri"].removeprefix("mxc://")
        async with session.get(f"/_matrix/client/v1/media/download/{media}") as answer:
            assert (answer.status, await answer.read()) == (200, picture)
        async with session.get(f"/_matrix/client/v1/media/thumbnail/{media}?width=96&height=96&method=crop") as answer:
            assert (answer.status, answer.content_type) == (200, "image/jpeg")


def make_secrets(folder: Path) -> dict[str, str]:
    """Make the secrets that docker-compose.yml asks for, as `openssl rand -hex 32` would."""
    made = {name: os.urandom(32).hex() for name in ("postgres-password", "s3-secret-key", "as-token")}
    for name, secret in made.items():
        (folder / name).write_text(f"{secret}\n")
    return made


def compose_text(secrets_folder: Path) -> str:
    """Read deploy/compose.yaml with its secrets elsewhere."""
    return (DEPLOY / "compose.yaml").read_text().replace("/run/secrets/", f"{secrets_folder}/")


def free_ports() -> dict[str, int]:
    """Find a port for each of SeaweedFS' roles; each has a gRPC twin 10000 above it."""
    roles, found = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port"), dict[str, int]()
    while len(found) < len(roles):
        port = 10_000 + secrets.randbelow(12_000)
        if port not in found.values() and is_free(port) and is_free(port + 10_000):
            found[roles[len(found)]] = port
    return found


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@asynccontextmanager
async def backends(folder: Path) -> AsyncIterator[Backends]:
    """Run SeaweedFS by its start script, and Postgres."""
    made, data, ports = make_secrets(folder), folder / "s3", free_ports()
    data.mkdir()
    document = yaml.safe_load(compose_text(folder))
    store = document["stores"]["main"]
    store["endpoint_url"] = store["endpoint_url"].replace("s3:8333", f"127.0.0.1:{ports['s3.port']}")
    environment = {
        "PATH": f"{SCRIPTS}:{os.defpath}",
        "DATA": str(data),
        "BIND": "127.0.0.1",
        "S3_PORT": str(ports["s3.port"]),
        "SECRET": str(folder / "s3-secret-key"),
        "EXTRA": " ".join(f"-{role}={port}" for role, port in ports.items() if role != "s3.port"),
        "GOMEMLIMIT": "320MiB",
        "HOME": str(data),
        "TMPDIR": str(data),
    }
    async with EmbeddedPostgres(folder / "pg", durable=False) as postgres:
        document["database"]["url"] = postgres.dsn
        async with program("/bin/sh", str(DEPLOY / "seaweedfs" / "start.sh"), environment=environment, cwd=data) as s3:
            await until(f"{store['endpoint_url']}/healthz", s3)
            await until(f"http://127.0.0.1:{ports['filer.port']}/buckets/media/", s3)
            yield Backends(document, made["as-token"])


async def migrated(config: Path, scripts: str = SCRIPTS) -> None:
    """Run `mediarepo migrate` to its end."""
    async with program(f"{scripts}/mediarepo", "migrate", "--config", str(config)) as process:
        assert await process.wait() == 0


@asynccontextmanager
async def served(
    config: Path, ready: str, *, cwd: Path | None = None, wrapper: Sequence[str] = (), scripts: str = SCRIPTS
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `mediarepo serve`, as found in the environment alone."""
    environment = {"PATH": f"{scripts}:/usr/sbin:/sbin:{os.defpath}", "MEDIAREPO_CONFIG": str(config)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(cwd or "/tmp")}  # noqa: S108 - it is never used
    command = [*wrapper, f"{scripts}/mediarepo", "serve"]
    async with program(*command, environment=environment, cwd=cwd) as process:
        await until(ready, process)
        yield process


async def refuses_connections(port: int) -> None:
    """Wait until nobody listens on a port."""
    async with asyncio.timeout(60):
        while True:
            with socket.socket() as probe:
                probe.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
                except ConnectionRefusedError:
                    return
            await asyncio.sleep(0.02)


async def stop(process: asyncio.subprocess.Process) -> int:
    """End a server politely; gives its exit status."""
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        return await process.wait()
