"""Connections to Postgres: pooled, with timeouts; driver errors become our own."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from mediarepo.config.storage import DatabaseConfig
from mediarepo.errors import UnavailableError


class DatabaseUnavailableError(UnavailableError):
    """Postgres cannot be reached, or did not answer in time; the cause says which."""


class SchemaIncompatibleError(DatabaseUnavailableError):
    """The schema is absent, too old or too new for this code; the message names the command that helps."""


class StaleKeyError(UnavailableError):
    """An object's key grew too old, or was claimed by the sweep, before its row was written; uploading again works."""


class LeaseLostError(UnavailableError):
    """The right to fill these media passed on to somebody else before their row was written."""


NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The present as an SQL expression, in ms since 1970; unlike now(), it moves on within a transaction."""


SCHEMA_VERSION = 10
"""The version that this code was written for: that of its newest migration."""
OLDEST_SERVABLE_VERSION = 10
"""The oldest version that has all this code needs, so that upgrades can roll."""


async def check_compatible(connection: Any, schema: str) -> None:  # noqa: ANN401 - pool proxy or plain connection
    """Refuse to serve on a schema that this code does not understand."""
    try:
        row = await connection.fetchrow("SELECT version, min_compatible FROM schema_meta")
    except asyncpg.UndefinedTableError as exc:
        raise SchemaIncompatibleError(
            f"the database has no mediarepo tables in schema {schema}: run `mediarepo migrate`", retry_after_s=30
        ) from exc
    version, min_compatible = row if row is not None else (0, 0)
    if version < OLDEST_SERVABLE_VERSION:
        raise SchemaIncompatibleError(
            f"the database schema has version {version}, this mediarepo needs {OLDEST_SERVABLE_VERSION} or later: "
            "run `mediarepo migrate`",
            retry_after_s=30,
        )
    if min_compatible > SCHEMA_VERSION:
        raise SchemaIncompatibleError(
            f"the database schema needs code for version {min_compatible} or later, this mediarepo is for "
            f"{SCHEMA_VERSION}: install a newer mediarepo",
            retry_after_s=30,
        )


if TYPE_CHECKING:  # only the stubs know these classes as generic
    BareConnection = asyncpg.Connection[asyncpg.Record]
else:
    BareConnection = asyncpg.Connection


class ReadPool:
    """Up to `limit` connections, each good for one statement at a time; broken ones are replaced when needed.

    A read through asyncpg's pool costs three times what the statement itself does; every download is one read.
    """

    def __init__(self, connect: Callable[[], Awaitable[BareConnection]], *, limit: int, timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._free = limit
        self._idle: list[BareConnection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def read(self, query: str, arguments: tuple[object, ...]) -> asyncpg.Record | None:
        """Read one row; TimeoutError when no connection becomes free in time."""
        connection = await self._take()
        healthy = False
        try:
            row: asyncpg.Record | None = await connection.fetchrow(query, *arguments)
        except asyncpg.PostgresError:
            healthy = True
            raise
        else:
            healthy = True
            return row
        finally:
            self._give_back(connection, healthy=healthy)

    async def close(self) -> None:
        """End all idle connections."""
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
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException:
            if turn in self._waiters:
                self._waiters.remove(turn)
            elif not turn.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        """Hand the place to whoever has waited longest, so that no newcomer overtakes."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


Row = asyncpg.Record
if TYPE_CHECKING:  # only the stubs know these classes as generic
    Connection = PoolConnectionProxy[Row]
    Pool = asyncpg.Pool[Row]
else:
    Connection, Pool = PoolConnectionProxy, asyncpg.Pool

_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    ConnectionError,
)
_UNAVAILABLE = (
    *_LOST,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    OSError,
    TimeoutError,
)

_UNREACHABLE = "the database cannot be reached just now"


class _Unreset(BareConnection):
    """A connection that needs no reset between two users, since no statement here sets session state."""

    def get_reset_query(self) -> str:
        """Ask for nothing: a reset would cost every read a second round trip."""
        return ""


def _password(config: DatabaseConfig) -> str:
    """Read the password as it is at the moment of connecting."""
    return config.password.get_secret_value() if config.password is not None else ""


def connect_arguments(config: DatabaseConfig) -> dict[str, Any]:
    """Say how to connect, in asyncpg's words."""
    return {
        "dsn": config.url,
        "password": None if config.password is None else partial(_password, config),
        "timeout": config.connect_timeout_ms / 1000,
        "command_timeout": (config.statement_timeout_ms + 1_000) / 1000,
        "server_settings": {
            "search_path": config.db_schema,
            "statement_timeout": str(config.statement_timeout_ms),
            "idle_in_transaction_session_timeout": str(config.statement_timeout_ms),
            "application_name": "mediarepo",
            "jit": "off",
        },
    }


class Database:
    """The pool; it connects when first asked, so that Postgres may come up later than we do."""

    def __init__(self, config: DatabaseConfig) -> None:
        self.config = config
        self._pool: Pool | None = None
        self._compatible = False
        reading = config.pool_size // 2
        self._writing = config.pool_size - reading
        self._readers = ReadPool(self._connect, limit=reading, timeout_s=config.acquire_timeout_ms / 1000)

    async def __aenter__(self) -> Self:
        self._pool = asyncpg.create_pool(
            min_size=0,
            max_size=self._writing,
            max_inactive_connection_lifetime=300,
            connection_class=_Unreset,
            **connect_arguments(self.config),
        )
        await self._pool
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is None:
            return
        await self._readers.close()
        try:
            async with asyncio.timeout(self.config.statement_timeout_ms / 1000):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def check(self) -> None:
        """Say whether the database answers with a schema we can serve on, else DatabaseUnavailableError."""
        async with self.connection() as connection:
            await connection.fetchval("SELECT 1")

    async def get(self, query: str, *arguments: object) -> Row | None:
        """Read one row; a connection that turns out to be dead is replaced once."""
        try:
            return await self._read(query, arguments)
        except DatabaseUnavailableError as exc:
            if not isinstance(exc.__cause__, _LOST):
                raise
            return await self._read(query, arguments)

    async def _read(self, query: str, arguments: tuple[object, ...]) -> Row | None:
        try:
            return await self._readers.read(query, arguments)
        except _UNAVAILABLE as exc:
            raise DatabaseUnavailableError(_UNREACHABLE, retry_after_s=5) from exc

    async def _connect(self) -> BareConnection:
        connection: BareConnection = await asyncpg.connect(**connect_arguments(self.config))
        try:
            await self._check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _check(self, connection: BareConnection | Connection) -> None:
        if not self._compatible:
            await check_compatible(connection, self.config.db_schema)
            self._compatible = True

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection without a transaction: each statement is its own."""
        if self._pool is None:
            raise DatabaseUnavailableError("the database is not open", retry_after_s=5)
        try:
            async with self._pool.acquire(timeout=self.config.acquire_timeout_ms / 1000) as connection:
                await self._check(connection)
                yield connection
        except _UNAVAILABLE as exc:
            raise DatabaseUnavailableError(_UNREACHABLE, retry_after_s=5) from exc

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction (read committed); it must not wait for anything but Postgres."""
        async with self.connection() as connection, connection.transaction():
            yield connection
