"""Connections to Postgres: pooled, with timeouts; driver errors become our own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.read_pool import BareConnection, ReadPool
from mediarepo.errors import UnavailableError
from mediarepo.model.request_record import Stage
from mediarepo.model.requester import current_record
from mediarepo.model.tasks import Lease

log = structlog.get_logger(__name__)


class DatabaseUnavailableError(UnavailableError):
    """Postgres cannot be reached, or does not answer in time; the cause says which."""


class SchemaIncompatibleError(DatabaseUnavailableError):
    """The schema is missing, too old or too new for this code; the message names the command that helps."""


class StaleKeyError(UnavailableError):
    """An object's key was too old, or claimed by garbage collection, before its row was written; retry the upload."""


class LeaseLostError(UnavailableError):
    """The lease on this work passed to another process before its row was written."""


NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The present as an SQL expression, in ms since 1970; unlike now(), it moves on within a transaction."""


def all_but_newest_sql(table: str, ts: str, keep: str) -> str:
    """Return the SQL statement that deletes all rows of a table but about the newest `keep`, by the column `ts`.

    Rows of the same moment as the first one beyond go with it.
    """
    return f"DELETE FROM {table} WHERE {ts} <= (SELECT {ts} FROM {table} ORDER BY {ts} DESC OFFSET {keep} LIMIT 1)"


SCHEMA_VERSION = 19
"""The version that this code was written for: that of its newest migration."""
OLDEST_SERVABLE_VERSION = 19
"""The oldest version that has all this code needs, so that upgrades can roll."""
TABLES = (
    "audit_log blob cache_invalidation cache_lease failed_item import_item import_orphan import_run import_source "
    "job_run journal_change journal_state lease media media_access media_mark media_usage media_usage_day "
    "media_usage_delta moved_object multipart_intent object_deletion object_usage object_usage_day object_usage_delta "
    "picture preview quarantine_change quarantined_blob quarantined_hash quarantined_server_name quota_reservation "
    "rate_level rebuild_part rebuild_row remote_failure retention_plan scan_hold scan_queue scan_result scan_round "
    "schema_meta server_backoff server_keys store_move store_recency task thumbnail thumbnail_failure unknown_object"
)
"""The tables that this code was written for."""


async def check_compatible(connection: Any, schema: str) -> None:  # noqa: ANN401 - pool proxy or plain connection
    """Check that this code can serve the schema.

    Raises SchemaIncompatibleError when it is missing, too old or too new.
    """
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


async def check_tables(connection: Any, schema: str) -> None:  # noqa: ANN401 - pool proxy or plain connection
    """Check that the schema has all its tables. Raises SchemaIncompatibleError naming those that are missing."""
    rows = await connection.fetch(
        "SELECT name FROM unnest($1::text[]) AS t (name) WHERE to_regclass(quote_ident($2) || '.' || name) IS NULL",
        TABLES.split(),
        schema,
    )
    if rows:
        names = ", ".join(row["name"] for row in rows)
        raise SchemaIncompatibleError(
            f"the database schema {schema} lacks tables that it should have: {names}; restore them from a backup",
            retry_after_s=30,
        )


class SchemaState:
    """Whether the schema is compatible, as far as this process knows; checked again when in doubt."""

    def __init__(self, schema: str) -> None:
        self.fits = False
        self._schema = schema
        self._unfit_since: float | None = None

    async def look(self, connection: Any) -> None:  # noqa: ANN401 - as above
        """Check the schema. Raises SchemaIncompatibleError; each change of state is logged once."""
        loop = asyncio.get_running_loop()
        try:
            await check_compatible(connection, self._schema)
            await check_tables(connection, self._schema)
        except SchemaIncompatibleError as exc:
            self.fits = False
            if self._unfit_since is None:
                self._unfit_since = loop.time()
                log.error("schema_incompatible", schema=self._schema, reason=exc.message)  # noqa: TRY400 - the message says it all
            raise
        self.fits = True
        if self._unfit_since is not None:
            outage_ms = int((loop.time() - self._unfit_since) * 1000)
            self._unfit_since = None
            log.warning("schema_compatible", schema=self._schema, outage_ms=outage_ms)


Row = asyncpg.Record
if TYPE_CHECKING:  # only the stubs know these classes as generic
    Connection = PoolConnectionProxy[Row]
    Pool = asyncpg.Pool[Row]
else:
    Connection, Pool = PoolConnectionProxy, asyncpg.Pool

_LOST = (
    asyncpg.PostgresConnectionError,
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
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    OSError,
    TimeoutError,
)
_MAY_NOT_FIT = (asyncpg.SyntaxOrAccessError, asyncpg.InvalidSchemaNameError)
"""What our SQL meets on another schema than it was written for (undefined tables), or when it is wrong itself."""

_SHARED_SESSION = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""What is met where each transaction may run in another session: prepared statements stay behind, and LISTEN too."""

_UNREACHABLE = "the database cannot be reached just now"
_WRONG_POOLING = "PgBouncer is in transaction pooling mode: session pooling is needed"


_fence: ContextVar[Lease | None] = ContextVar("fence", default=None)


@contextmanager
def fenced(lease: Lease) -> Iterator[None]:
    """Make each transaction of this block check its lease first, and raise LeaseLostError once it is lost."""
    token = _fence.set(lease)
    try:
        yield
    finally:
        _fence.reset(token)


def is_fenced() -> bool:
    """Say whether each transaction must check a lease first."""
    return _fence.get() is not None


class _Unreset(BareConnection):
    """A connection that needs no reset between two users, since no statement here sets session state."""

    def get_reset_query(self) -> str:
        """Ask for nothing: a reset would cost every read a second round trip."""
        return ""


def _password(config: DatabaseConfig) -> str:
    """Read the password as it is at the moment of connecting."""
    return config.password.get_secret_value() if config.password is not None else ""


def connect_arguments(config: DatabaseConfig, name: str = "mediarepo") -> dict[str, Any]:
    """Return the arguments of asyncpg.connect; `name` is what Postgres shows of the connection."""
    return {
        "dsn": config.url,
        "password": None if config.password is None else partial(_password, config),
        "timeout": config.connect_timeout_ms / 1000,
        "command_timeout": (config.statement_timeout_ms + 1_000) / 1000,
        "server_settings": {
            "search_path": config.db_schema,
            "statement_timeout": str(config.statement_timeout_ms),
            "idle_in_transaction_session_timeout": str(config.statement_timeout_ms),
            "application_name": name,
            "jit": "off",
        },
    }


class Database:
    """The connection pool; it connects at first use, so Postgres may start later than we do."""

    def __init__(self, config: DatabaseConfig, on_wait: Callable[[float], object] = lambda _: None) -> None:
        """`on_wait` hears how long each transaction waited for its connection, in seconds."""
        self.config = config
        self.on_wait = on_wait
        self._pool: Pool | None = None
        self._schema = SchemaState(config.db_schema)
        self._waiting = 0
        self._look_began_s = 0.0
        self._looking = asyncio.Lock()
        reading = config.pool_size // 2
        self._writing = config.pool_size - reading
        self._readers = ReadPool(
            self._connect, limit=reading, timeout_s=config.acquire_timeout_ms / 1000, on_wait=on_wait
        )

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

    @property
    def is_known(self) -> bool:
        """Whether Postgres has answered with a schema that fits."""
        return self._schema.fits

    @property
    def in_use(self) -> int:
        """How many connections are in use."""
        return self._readers.in_use + (0 if self._pool is None else self._pool.get_size() - self._pool.get_idle_size())

    @property
    def waiting(self) -> int:
        """How many tasks wait for a connection."""
        return self._waiting + self._readers.waiting

    async def check(self) -> None:
        """Check that Postgres answers with a compatible schema.

        Raises DatabaseUnavailableError or SchemaIncompatibleError.
        """
        async with self._open() as connection:
            await self._schema.look(connection)

    async def get(self, query: str, *arguments: object) -> Row | None:
        """Read one row; a dead connection is replaced once."""
        try:
            return await self._read(query, arguments)
        except DatabaseUnavailableError as exc:
            if not isinstance(exc.__cause__, _LOST):
                raise
            return await self._read(query, arguments)

    async def _read(self, query: str, arguments: tuple[object, ...]) -> Row | None:
        if not self._schema.fits:
            await self.check()
        record, began = current_record(), perf_counter()
        try:
            return await self._readers.read(query, arguments)
        except _SHARED_SESSION as exc:
            raise DatabaseUnavailableError(_WRONG_POOLING, retry_after_s=30) from exc
        except _UNAVAILABLE as exc:
            raise DatabaseUnavailableError(_UNREACHABLE, retry_after_s=5) from exc
        except _MAY_NOT_FIT:
            await self._blame_schema()
            raise
        finally:
            if record is not None:
                record.note(Stage.DATABASE, began)

    async def _blame_schema(self) -> None:
        """Raise SchemaIncompatibleError when the schema does not fit (any more): then our SQL is not to blame.

        One look answers all who met an error before it began.
        """
        loop = asyncio.get_running_loop()
        met_s = loop.time()
        async with self._looking:
            if not self._schema.fits or self._look_began_s <= met_s:
                self._look_began_s = loop.time()
                await self.check()

    async def _connect(self) -> BareConnection:
        connection: BareConnection = await asyncpg.connect(**connect_arguments(self.config))
        return connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Acquire a connection in autocommit mode.

        Raises DatabaseUnavailableError when Postgres is not available, SchemaIncompatibleError when the schema does not
        match; errors of the statement itself propagate as asyncpg's.
        """
        try:
            async with self._open() as connection:
                if not self._schema.fits:
                    await self._schema.look(connection)
                yield connection
        except _MAY_NOT_FIT:
            await self._blame_schema()
            raise

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Connection]:
        """Lend a connection whatever the schema is like."""
        if self._pool is None:
            raise DatabaseUnavailableError("the database is not open", retry_after_s=5)
        try:
            async with self._lent(self._pool) as connection:
                yield connection
        except _SHARED_SESSION as exc:
            raise DatabaseUnavailableError(_WRONG_POOLING, retry_after_s=30) from exc
        except _UNAVAILABLE as exc:
            raise DatabaseUnavailableError(_UNREACHABLE, retry_after_s=5) from exc

    @asynccontextmanager
    async def _lent(self, pool: Pool) -> AsyncIterator[Connection]:
        record, began = current_record(), perf_counter()
        self._waiting += 1
        try:
            connection = await pool.acquire(timeout=self.config.acquire_timeout_ms / 1000)
        except asyncpg.InterfaceError as exc:
            raise ConnectionAbortedError("the pool is closed") from exc
        finally:
            self._waiting -= 1
            self.on_wait(perf_counter() - began)
        try:
            yield connection
        except asyncpg.InterfaceError as exc:
            if _is_gone(connection):
                raise ConnectionResetError("the connection was closed") from exc
            raise
        finally:
            await pool.release(connection)
            if record is not None:
                record.note(Stage.DATABASE, began)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Acquire a connection inside a transaction (read committed); it must not wait for anything but Postgres."""
        async with self.connection() as connection, connection.transaction():
            await _check_fence(connection)
            yield connection


async def _check_fence(connection: Connection) -> None:
    """Keep the lease that work is done under, if there is one, from passing on until the transaction ends."""
    lease = _fence.get()
    if lease is None:
        return
    query = "SELECT true FROM lease WHERE name = $1 AND fence = $2 FOR SHARE"
    if not await connection.fetchval(query, lease.name, lease.fence):
        raise LeaseLostError("another process has taken this work over")


def _is_gone(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back, which it does when the connection ends
        return True
