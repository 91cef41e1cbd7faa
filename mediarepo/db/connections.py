"""Connections to Postgres: pooled, bounded in time, with foreign errors translated at the border."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.errors import DatabaseUnavailableError
from mediarepo.db.readers import BareConnection, Readers
from mediarepo.db.schema import check_compatible

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


def connect_arguments(config: DatabaseConfig) -> dict[str, Any]:
    """Say how to connect, in asyncpg's words."""
    return {
        "dsn": config.url,
        "password": config.password.get_secret_value() if config.password is not None else None,
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
        self._readers = Readers(self._connect, limit=reading, timeout_s=config.acquire_timeout_ms / 1000)

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
