"""A lease under which a process may serve rows from its memory, and how others end it at once.

Rows tell by NOTIFY that they change, before the commit returns (triggers of the schema). A process may use what it has
read only while its lease holds: `LEASE_S` from the moment when it asked to renew it, on the connection that listens,
whose every answer comes after the notifications of all earlier commits. So a second after a commit no process serves
what it read before, even one that was stopped, cut off or whose clock was set: that bound needs nobody's cooperation.
Whoever wants it sooner (`mediarepo.services.invalidation`) asks all that have a lease to say that they have dropped
everything.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import asyncpg
import structlog

from mediarepo.db.database import Database
from mediarepo.db.read_pool import BareConnection

log = structlog.get_logger(__name__)

LEASE_S = 1.0
"""How long a lease holds without renewal, in seconds."""
_RENEW_S = 0.4
_CHECK_S = 10.0
_ECHO_S = 5.0
_FORGOTTEN = "10 s"
"""Leases renewed before that are over by any clock; their rows are what killed processes left."""

_CHANNEL = "'mediarepo_rows_' || md5(current_schema())"
_ECHO = f"SELECT pg_notify({_CHANNEL}, 'echo:' || $1)"
_RENEW = """INSERT INTO cache_lease (process, dropped) VALUES ($1, $2)
    ON CONFLICT (process) DO UPDATE SET renewed_at = clock_timestamp(), dropped = EXCLUDED.dropped"""
_END = "DELETE FROM cache_lease WHERE process = $1"
_TIDY = f"DELETE FROM cache_lease WHERE renewed_at < clock_timestamp() - interval '{_FORGOTTEN}' * 2"
_OTHERS = f"""SELECT count(*) FROM cache_lease
    WHERE process <> $1 AND dropped < $2 AND renewed_at > clock_timestamp() - interval '{_FORGOTTEN}'"""
_ASK = f"UPDATE cache_invalidation SET number = number + 1 RETURNING number, pg_notify({_CHANNEL}, number::text)"
"""The row's lock makes the numbers grow in the order of the commits, which is that of the notifications."""


def boot_s() -> float:
    """Return the seconds since the machine started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class CacheLease:
    """Whether this process may use rows that it has read before; `epoch` changes when it must forget them.

    `is_kept` says that this is a server, which keeps a lease.
    """

    def __init__(self, clock: Callable[[], float] = boot_s) -> None:
        self.process = uuid4().hex
        self.epoch = 0
        self.is_kept = False
        self._clock = clock
        self._until = 0.0
        self._used = self._resting = False
        self._asked = self._dropped = 0
        self._echo: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()

    @property
    def holds(self) -> bool:
        """Whether the lease holds; asking keeps it alive."""
        self._used = True
        if self._resting:
            self._wake.set()
        return self._clock() < self._until

    def drop(self) -> None:
        """Forget every row read so far, also those that are just being read."""
        self.epoch += 1

    def lose(self) -> None:
        """End the lease: notifications may get lost from now on."""
        self._until = 0.0
        self.drop()

    async def keep(self, connection: BareConnection) -> None:
        """Keep the lease by a connection of its own until that is closed; it raises asyncpg's errors.

        There is no lease where notifications do not arrive, as behind a pooler of transactions.
        """
        self.is_kept, self._asked = True, self._dropped
        try:
            await connection.add_listener(str(await connection.fetchval(f"SELECT {_CHANNEL}")), self._heard)
            connection.add_termination_listener(lambda _: self.lose())
            await connection.execute("SET synchronous_commit = off")
            await connection.execute(_TIDY)
            if await self._hears_itself(connection):
                await self._renew_for_ever(connection)
        finally:
            self.lose()
            await self._give_up(connection)

    async def _hears_itself(self, connection: BareConnection) -> bool:
        self._echo = asyncio.get_running_loop().create_future()
        await connection.execute(_ECHO, self.process)
        try:
            async with asyncio.timeout(_ECHO_S):
                await self._echo
        except TimeoutError:
            log.warning("no_row_cache", reason="notifications do not arrive: is a pooler in between?")
            return False
        return True

    async def _renew_for_ever(self, connection: BareConnection) -> None:
        while not connection.is_closed():
            if self._used or self._asked > self._dropped:
                await self._renew(connection)
                await self._pause(_RENEW_S)
            else:
                await connection.fetchval("SELECT 1")
                await self._rest()

    async def _rest(self) -> None:
        """Let the lease end while nobody uses it."""
        self._resting = not self._used
        try:
            await self._pause(_CHECK_S if self._resting else 0)
        finally:
            self._resting = False

    async def _pause(self, longest_s: float) -> None:
        """Wait for so long, or until somebody asks to drop what was read."""
        try:
            async with asyncio.timeout(longest_s):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def _renew(self, connection: BareConnection) -> None:
        began, asked, self._used = self._clock(), self._asked, False
        await connection.execute(_RENEW, self.process, asked)
        self._dropped = max(self._dropped, asked)
        if self._until <= self._clock():
            self.drop()  # nobody had to ask a process whose lease was over
        self._until = began + LEASE_S

    async def _give_up(self, connection: BareConnection) -> None:
        """Spare others from asking a process that has ended."""
        if connection.is_closed():
            return
        try:
            async with asyncio.timeout(LEASE_S):
                await connection.execute(_END, self.process)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            log.debug("cache_lease_left_behind")

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self.drop()
        text = str(payload)
        if text == f"echo:{self.process}" and self._echo is not None and not self._echo.done():
            self._echo.set_result(None)
        elif text.isdecimal():
            self._asked = max(self._asked, int(text))
            self._wake.set()


class CacheLeaseTable:
    """Reads who else may serve rows from memory, and asks them to drop what they have read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_others(self, process: str, number: int = 1 << 62) -> int:
        """Count the other processes with a lease that have not dropped their rows since invalidation `number`.

        Raises DatabaseUnavailableError.
        """
        row = await self._database.get(_OTHERS, process, number)
        return 0 if row is None else int(row[0])

    async def invalidate(self) -> int:
        """Ask all processes to drop their rows; return the number of this invalidation.

        Raises DatabaseUnavailableError.
        """
        row = await self._database.get(_ASK)
        return 0 if row is None else int(row["number"])
