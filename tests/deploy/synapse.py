"""A real Synapse from the package index, in an environment of its own, with media left to somebody else."""

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.deploy.natively import until
from tests.support.ports import free_port

PACKAGES = ("matrix-synapse[url-preview]==1.163.2", "matrix-nio==0.26.0")
SERVER_NAME = "synapse.test"
AS_TOKEN = "as-token-of-the-real-bridge"
SHARED_SECRET = "registration-secret"
PATIENT = {"per_second": 1000, "burst_count": 1000}


def make_environment(cache: Path) -> Path:
    """Install Synapse and a client library once; gives the environment's Python."""
    name = hashlib.sha256(f"{PACKAGES} {sys.version}".encode()).hexdigest()[:12]
    folder = cache / f"environment-{name}"
    ready = folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--prefer-binary"]
        subprocess.run([*pip, *PACKAGES], check=True)
        ready.touch()
    return folder / "bin" / "python"


@dataclass
class Synapse:
    """A homeserver that can be stopped and started again."""

    python: Path
    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    server_name: str = SERVER_NAME
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def configure(self) -> None:
        registration = {
            "id": "bridge",
            "url": None,
            "as_token": AS_TOKEN,
            "hs_token": "unused",
            "sender_localpart": "bridge",
            "rate_limited": False,
            "namespaces": {"users": [{"regex": f"@_bridge_.*:{self.server_name}", "exclusive": True}]},
        }
        (self.folder / "bridge.yaml").write_text(json.dumps(registration))
        handler = {"class": "logging.StreamHandler"}
        logs = {"version": 1, "handlers": {"console": handler}, "root": {"level": "WARNING", "handlers": ["console"]}}
        (self.folder / "logs.yaml").write_text(json.dumps(logs))
        resources = [{"names": ["client", "federation"], "compress": False}]
        document = {
            "server_name": self.server_name,
            "enable_media_repo": False,
            "listeners": [
                {
                    "port": self.port,
                    "bind_addresses": ["127.0.0.1"],
                    "type": "http",
                    "x_forwarded": True,
                    "resources": resources,
                }
            ],
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}},
            "log_config": str(self.folder / "logs.yaml"),
            "pid_file": str(self.folder / "homeserver.pid"),
            "signing_key_path": str(self.folder / "signing.key"),
            "macaroon_secret_key": "macaroons",
            "form_secret": "forms",
            "registration_shared_secret": SHARED_SECRET,
            "allow_guest_access": True,
            "app_service_config_files": [str(self.folder / "bridge.yaml")],
            "report_stats": False,
            "trusted_key_servers": [],
            "federation_domain_whitelist": [],
            "presence": {"enabled": False},
            "rc_registration": PATIENT,
            "rc_login": {"address": PATIENT, "account": PATIENT, "failed_attempts": PATIENT},
            "rc_message": PATIENT,
            **self.changes,
        }
        (self.folder / "homeserver.yaml").write_text(json.dumps(document))

    async def start(self) -> None:
        command = [str(self.python), "-m", "synapse.app.homeserver", "-c", str(self.folder / "homeserver.yaml")]
        if not (self.folder / "signing.key").exists():
            keys = await asyncio.create_subprocess_exec(*command, "--generate-keys", cwd=self.folder)
            assert await keys.wait() == 0
        with (self.folder / "synapse.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, cwd=self.folder)
        await until(f"{self.url}/health", self.process)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    async def ask(self, method: str, path: str, *, token: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Ask the homeserver itself something that it must grant."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(self.url, headers=headers) as session,
            session.request(method, path, **arguments) as answer,
        ):
            body: dict[str, Any] = await answer.json()
            assert answer.status == 200, body
            return body

    async def register(self, name: str, *, admin: bool = False) -> str:
        """Make a user; gives an access token."""
        path = "/_synapse/admin/v1/register"
        nonce = (await self.ask("GET", path))["nonce"]
        words = [nonce, name, password_of(name), "admin" if admin else "notadmin"]
        mac = hmac.new(SHARED_SECRET.encode(), "\0".join(words).encode(), hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": name, "password": password_of(name), "admin": admin, "mac": mac}
        return str((await self.ask("POST", path, json=body))["access_token"])

    async def register_guest(self) -> str:
        """Make a guest; gives an access token."""
        return str((await self.ask("POST", "/_matrix/client/v3/register?kind=guest", json={}))["access_token"])

    async def register_ghost(self, name: str) -> None:
        """Make a user of the application service."""
        body = {"type": "m.login.application_service", "username": name, "inhibit_login": True}
        await self.ask("POST", "/_matrix/client/v3/register", token=AS_TOKEN, json=body)


def password_of(name: str) -> str:
    return f"password of {name}"


@asynccontextmanager
async def running_synapse(cache: Path, folder: Path, **arguments: Any) -> AsyncIterator[Synapse]:
    """Run a homeserver with no users yet."""
    python = await asyncio.to_thread(make_environment, cache)
    synapse = Synapse(python, folder, **arguments)
    synapse.configure()
    try:
        await synapse.start()
        yield synapse
    finally:
        await synapse.stop()
