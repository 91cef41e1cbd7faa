"""An S3 server of our own, from a wheel: SeaweedFS as one process, on loopback only.

Only its S3 port asks for credentials. The others (master, volume, filer, admin and their gRPC twins) do not, which is
why all of them are bound to loopback, and why this is for trying out and for tests.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

from mediarepo.embedded.child_process import ChildProcess, clean_environment
from mediarepo.embedded.data_folder import EmbeddedError, claim_folder, missing_extra, start_error_text

ROLES = ("master", "volume", "filer", "s3", "admin")
_GRPC_OFFSET = 10_000  # SeaweedFS' own: every port has a twin


def choose_ports(remembered: Path) -> dict[str, int]:
    """Choose free ports for all roles, with each one's offset port free too.

    Another process may still take one first.
    """
    known = _read(remembered)
    if set(known) == set(ROLES) and all(_is_free(port) for port in known.values()):
        return known
    ports: dict[str, int] = {}
    while len(ports) < len(ROLES):
        port = 10_000 + secrets.randbelow(12_000)
        if port not in ports.values() and _is_free(port):
            ports[ROLES[len(ports)]] = port
    remembered.write_text(json.dumps(ports), encoding="ascii")
    return ports


def remove_stale_sockets(remembered: Path) -> None:
    """Remove the unix sockets that SeaweedFS puts into /tmp for its ports, when nothing answers on them."""
    for role, port in _read(remembered).items():
        for name in (f"{role}-{port}", f"{role}-grpc-{port + _GRPC_OFFSET}"):
            path = Path(f"/tmp/seaweedfs-{name}.sock")  # noqa: S108 - its choice, not ours
            with suppress(OSError):
                if not _socket_answers(path):
                    path.unlink()


def _read(remembered: Path) -> dict[str, int]:
    try:
        known = json.loads(remembered.read_text(encoding="ascii"))
        return {str(role): int(port) for role, port in known.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_free(port: int) -> bool:
    try:
        for one in (port, port + _GRPC_OFFSET):
            with socket.socket() as candidate:
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                candidate.bind(("127.0.0.1", one))
    except (OSError, OverflowError):
        return False
    return True


def _socket_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


_START_TIMEOUT_S = 30
_STOP_GRACE_S = 6
_ATTEMPTS = 5
_MEMORY_LIMIT = "320MiB"
_PORT_TAKEN = re.compile(r"Port allocation failed|address already in use")


class EmbeddedS3:
    """Runs SeaweedFS while entered; its attributes are a store's settings. The objects stay in the folder.

    `memory_limit`, in Go's notation, is where the server begins to collect garbage more often.
    """

    def __init__(self, folder: Path, *, durable: bool = True, memory_limit: str = _MEMORY_LIMIT) -> None:
        self.region = "us-east-1"
        self.bucket = "media"
        self.access_key_id = "mediarepo"
        self.secret_access_key = ""
        self.endpoint_url = ""
        self._folder = folder.absolute()
        self._durable = durable
        self._memory_limit = memory_limit
        self._bucket_url = ""
        self._server = ChildProcess("seaweedfs", self._folder)
        self._stack = AsyncExitStack()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    async def __aenter__(self) -> Self:
        binary = _binary()
        async with AsyncExitStack() as stack:
            stack.enter_context(claim_folder(self._folder))
            try:
                self.secret_access_key = _credentials(self._folder, self.access_key_id)
                await self._start(binary, stack)
            except OSError as exc:
                raise EmbeddedError(f"the S3 server has no place to run in: {exc}") from exc
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, binary: str, stack: AsyncExitStack) -> None:
        remembered = self._folder / "ports.json"
        stack.callback(remove_stale_sockets, remembered)
        stack.push_async_callback(self._stop)
        await self._server.stop(signal.SIGTERM, grace_s=_STOP_GRACE_S)
        for _ in range(_ATTEMPTS):
            remove_stale_sockets(remembered)
            self._launch(binary, choose_ports(remembered))
            if await self._is_ready():
                return
            await self._stop()
            remembered.unlink(missing_ok=True)
        raise EmbeddedError(
            f"the S3 server found its ports taken {_ATTEMPTS} times; its log is {self._server.log_path}"
        )

    async def _stop(self) -> None:
        first, grace_s = (signal.SIGTERM, _STOP_GRACE_S) if self._durable else (signal.SIGKILL, 0)
        await self._server.stop(first, grace_s=grace_s)

    def _launch(self, binary: str, ports: Mapping[str, int]) -> None:
        (self._folder / "data" / "mini.options").unlink(missing_ok=True)  # it would bring back another run's ports
        self._server.start(
            [binary, *_flags(self._folder, ports, self.bucket)],
            environment=clean_environment() | {"GOMEMLIMIT": self._memory_limit},
            last_signal=signal.SIGTERM if self._durable else signal.SIGKILL,
        )
        self.endpoint_url = f"http://127.0.0.1:{ports['s3']}"
        self._bucket_url = f"http://127.0.0.1:{ports['filer']}/buckets/{self.bucket}/"

    async def _is_ready(self) -> bool:
        """Wait until the server answers; False: it ended because somebody else was quicker to take a port."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await asyncio.to_thread(_answers, [f"{self.endpoint_url}/healthz", self._bucket_url]):
                    if not self._server.is_running() and _PORT_TAKEN.search(self._server.words()):
                        return False
                    self._server.check_running()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise start_error_text("the S3 server did not answer in time", self._server.words()) from None
        self._server.check_running()
        return True


def _flags(folder: Path, ports: Mapping[str, int], bucket: str) -> list[str]:
    data = folder / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    return [
        "-v=0",
        "-logtostderr=true",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{role}.port={port}" for role, port in ports.items()),
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
        raise missing_extra()
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


def _answers(addresses: list[str]) -> bool:
    """Say whether the server is there, and its bucket as well, which is made a moment later."""
    try:
        for address in addresses:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310 - http, our own
                pass
    except urllib.error.HTTPError as exc:
        exc.close()
        return False
    except OSError:
        return False
    return True
