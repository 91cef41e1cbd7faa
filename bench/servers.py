"""The servers that are measured: mediarepo as it is run, and nginx before the same bucket."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from bench.processes import children
from mediarepo.embedded.services import EmbeddedServices

SERVER_NAME = "bench.example"
_START_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 15
_WITH_UVLOOP = "from mediarepo.cli.main import main; main()"
_WITHOUT_UVLOOP = f"import sys; sys.modules['uvloop'] = None; {_WITH_UVLOOP}"
_NGINX = """
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    keepalive_requests 1000000000;
    upstream s3 {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://s3;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host {upstream};
            proxy_buffers 16 64k;
            proxy_max_temp_file_size 0;
            proxy_request_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A server: where it answers, and the process whose cost is counted."""

    address: str
    pid: int


def settings_of(
    services: EmbeddedServices, token: str, address: str, *, signing_key_file: str | None = None, **changes: object
) -> dict[str, Any]:
    """Write a configuration with one homeserver, one application service and every other setting as it comes."""
    s3 = services.s3
    appservice = {"id": "bench", "as_token": token, "sender": f"@bench:{SERVER_NAME}"}
    return {
        "listen": {"addresses": [address], "workers": 1, "shutdown_timeout_ms": 5_000},
        "database": {"url": services.postgres.dsn},
        "homeservers": [
            {"server_name": SERVER_NAME, "appservices": [appservice], "signing_key_file": signing_key_file}
        ],
        "stores": {
            "main": {
                "endpoint_url": s3.endpoint_url,
                "region": s3.region,
                "bucket": s3.bucket,
                "access_key_id": s3.access_key_id,
                "secret_access_key": s3.secret_access_key,
            }
        },
        "log": {"level": "warning"},
        **changes,
    }


@asynccontextmanager
async def mediarepo(
    services: EmbeddedServices,
    folder: Path,
    token: str,
    *,
    uvloop: bool = True,
    changes: Mapping[str, Any] = MappingProxyType({}),
    store: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[Running]:
    """Run `mediarepo serve` as a process of its own."""
    config, address = folder / "config.yaml", _free_address()
    settings = settings_of(services, token, address, **changes)
    settings["stores"]["main"].update(store)
    config.write_text(json.dumps(settings), encoding="ascii")  # JSON is YAML too
    command = [sys.executable, "-c", _WITH_UVLOOP if uvloop else _WITHOUT_UVLOOP]
    subprocess.run([*command, "migrate", "--config", str(config)], check=True, stdout=subprocess.DEVNULL)  # noqa: ASYNC221 - ourselves, before anything runs
    with _process([*command, "serve", "--config", str(config)], folder / "serve.log") as process:
        await _until_it_answers(f"http://{address}/health/ready", process)
        yield Running(address, process.pid)


def has_nginx() -> bool:
    """Say whether nginx is installed."""
    return _nginx_path() is not None


@asynccontextmanager
async def nginx(upstream: str, folder: Path) -> AsyncIterator[Running]:
    """Run nginx with one worker, which streams from and to the S3 server."""
    config, address = folder / "nginx.conf", _free_address()
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(folder=folder, upstream=upstream, address=address, user=user), encoding="ascii")
    log = folder / "nginx.log"
    with _process([str(_nginx_path()), "-p", str(folder), "-e", str(log), "-c", str(config)], log) as master:
        await _until_it_answers(f"http://{address}/", master)
        (worker,) = children(master.pid)
        yield Running(address, worker)


def new_token() -> str:
    """Make an application service's token."""
    return secrets.token_urlsafe(32)


def _nginx_path() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def _process(command: list[str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log_path.open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


async def _until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for any answer that is no failure; what the path holds does not matter."""
    async with asyncio.timeout(_START_TIMEOUT_S), aiohttp.ClientSession() as session:
        while process.poll() is None:
            try:
                async with session.get(url) as answer:
                    if answer.status < 500:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the server at {url} ended with status {process.returncode}")
