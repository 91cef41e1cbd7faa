"""Connections for single reads: the one used last is used next, without a pool's ceremony."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:  # only the stubs know these classes as generic
    BareConnection = asyncpg.Connection[asyncpg.Record]
else:
    BareConnection = asyncpg.Connection


class ReadPool:
    """Up to `limit` connections, one statement at a time each; broken ones are replaced when needed.

    A read through asyncpg's pool costs three times as much as the statement; every download is one read.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[BareConnection]],
        *,
        limit: int,
        timeout_s: float,
        on_wait: Callable[[float], object] = lambda _: None,
    ) -> None:
        """`on_wait` hears how long a read waited in line, in seconds."""
        self._connect = connect
        self._on_wait = on_wait
        self._timeout_s = timeout_s
        self._limit = self._free = limit
        self._idle: list[BareConnection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def in_use(self) -> int:
        """How many connections are in use."""
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        """How many tasks wait for a connection."""
        return len(self._waiters)

    async def read(self, query: str, arguments: tuple[object, ...]) -> asyncpg.Record | None:
        """Read one row.

        Raises TimeoutError when no connection becomes free in time, ConnectionResetError when it was closed.
        """
        connection = await self._take()
        healthy = False
        try:
            row: asyncpg.Record | None = await connection.fetchrow(query, *arguments)
        except asyncpg.PostgresError:
            healthy = True
            raise
        except asyncpg.InterfaceError as exc:
            if connection.is_closed():
                raise ConnectionResetError("the connection was closed") from exc
            healthy = True
            raise
        else:
            healthy = True
            return row
        finally:
            self._give_back(connection, healthy=healthy)

    async def close(self) -> None:
        """Close all idle connections."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    async def _take(self) -> BareConnection:
        await self._enter()
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
            return await self._connect()
        except BaseException:
            self._leave()
            raise

    def _give_back(self, connection: BareConnection, *, healthy: bool) -> None:
        if healthy and not connection.is_closed():
            self._idle.append(connection)
        else:
            connection.terminate()
        self._leave()

    async def _enter(self) -> None:
        """Take a place, or wait in line until one is handed over."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        began = perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException:
            if turn in self._waiters:
                self._waiters.remove(turn)
            elif not turn.cancelled():
                self._leave()
            raise
        finally:
            self._on_wait(perf_counter() - began)

    def _leave(self) -> None:
        """Hand the place to whoever has waited longest, so that no newcomer overtakes."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
