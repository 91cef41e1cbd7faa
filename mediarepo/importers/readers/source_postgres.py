"""A source's Postgres database, possibly in use, directly, through PgBouncer, or a replica."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from mediarepo.importers.errors import SourceError, SourceUnavailableError
from mediarepo.importers.readers.coercion import Row, key_text
from mediarepo.importers.readers.source_database import Dialect, Selection, key_name, render_select

if TYPE_CHECKING:  # only the stubs know these classes as generic
    Connection = PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection, Pool = PoolConnectionProxy, asyncpg.Pool

_CONNECTIONS = 6
_CONNECT_TIMEOUT_S = 15
_COMMAND_TIMEOUT_S = 600
_FETCH = 1000
_PAGE = 10_000
_ATTEMPTS = 5
_STATEMENT_POOLING = "statement pooling"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PAUSE_S = 0.5
_NO_CURSOR = (asyncpg.ProtocolViolationError, asyncpg.FeatureNotSupportedError, asyncpg.InvalidCursorNameError)
_INTERRUPTED = (
    *_NO_CURSOR,
    asyncpg.SerializationError,  # a replica's "conflict with recovery"
    asyncpg.QueryCanceledError,
    asyncpg.InvalidSQLStatementNameError,  # PgBouncer gave the statement to another server
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.NoActiveSQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    OSError,
    TimeoutError,
)


class PostgresDialect:
    """Postgres compares texts by the database's collation, unless told otherwise."""

    def text(self, number: int) -> str:
        """Return the placeholder of a text argument."""
        return f"CAST(${number} AS TEXT)"

    def bytewise(self, expression: str) -> str:
        """Return the expression with the "C" collation."""
        return f'({expression}) COLLATE "C"'


class PostgresDatabase:
    """Streams with a server-side cursor over one snapshot; when that breaks, continues after the last key in pages."""

    def __init__(self, dsn: str, *, settings: Mapping[str, str] | None = None, words: str = "the database") -> None:
        self.dialect: Dialect = PostgresDialect()
        self.words = words
        self.warnings: Sequence[str] = ()
        self._dsn = dsn
        self._settings = dict(settings or {})
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def columns(self, table: str) -> frozenset[str]:
        """Return a table's readable columns; none when there is no such table."""
        found = await self.rows(
            "SELECT column_name AS name FROM information_schema.columns"
            " WHERE table_name = {0} AND table_schema = ANY (current_schemas(FALSE))"
            " AND has_column_privilege(CAST(quote_ident(table_schema) || '.' || quote_ident(table_name) AS regclass),"
            " column_name, 'SELECT')",
            table,
        )
        return frozenset(str(row["name"]) for row in found)

    async def stream(self, selection: Selection, after: Sequence[str] | None = None) -> AsyncGenerator[Row, None]:
        """Stream rows of one snapshot; after a lost connection, of a second one.

        Raises SourceError when they cannot be read.
        """
        failures = 0
        while True:
            try:
                rows = self._snapshot(selection, after) if not failures else self._pages(selection, after)
                async with aclosing(rows):
                    async for row in rows:
                        yield row
                        after = [key_text(row[key_name(number)]) for number in range(len(selection.keys))]
                        failures = min(failures, 1)
            except _INTERRUPTED as exc:
                failures += 1
                if failures > _ATTEMPTS or _STATEMENT_POOLING in str(exc):
                    raise self._unavailable(exc) from exc
                await asyncio.sleep(_PAUSE_S * (failures - 1))
            except asyncpg.PostgresError as exc:
                raise SourceError(f"{self.words} cannot be read: {exc}") from exc
            else:
                return

    async def _snapshot(self, selection: Selection, after: Sequence[str] | None) -> AsyncGenerator[Row, None]:
        query = render_select(selection, self.dialect, after=after)
        async with (
            self._connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            cursor = await connection.cursor(query, *selection.arguments, *(after or ()))
            while batch := await cursor.fetch(_FETCH):
                for record in batch:
                    yield dict(record)

    async def _pages(self, selection: Selection, after: Sequence[str] | None) -> AsyncGenerator[Row, None]:
        while True:
            query = render_select(selection, self.dialect, after=after) + f" LIMIT {_PAGE}"
            page = await self._fetch(query, *selection.arguments, *(after or ()))
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            after = [key_text(page[-1][key_name(number)]) for number in range(len(selection.keys))]

    async def rows(self, query: str, *arguments: str) -> list[Row]:
        """Read a few rows, with retries after a lost connection.

        Raises SourceUnavailableError when every try failed, SourceError when Postgres refuses the query.
        """
        if any(_UNSTORABLE.search(argument) for argument in arguments):
            return []
        query = query.format(*(self.dialect.text(number + 1) for number in range(len(arguments))))
        for attempt in range(_ATTEMPTS):
            try:
                return await self._fetch(query, *arguments)
            except _INTERRUPTED as exc:
                if attempt == _ATTEMPTS - 1 or isinstance(exc, OSError) or _STATEMENT_POOLING in str(exc):
                    raise self._unavailable(exc) from exc
                await asyncio.sleep(_PAUSE_S * attempt)
            except asyncpg.PostgresError as exc:
                raise SourceError(f"{self.words} cannot be read: {exc}") from exc
        raise SourceUnavailableError(f"{self.words} cannot be read")

    def _unavailable(self, exc: Exception) -> SourceUnavailableError:
        hint = (
            ": PgBouncer must pool transactions or sessions, or be left aside" if _STATEMENT_POOLING in str(exc) else ""
        )
        return SourceUnavailableError(f"{self.words} cannot be read: {exc or type(exc).__name__}{hint}")

    async def _fetch(self, query: str, *arguments: str) -> list[Row]:
        """Fetch in a transaction: between two of them, PgBouncer may give another server to us."""
        async with self._connection() as connection, connection.transaction(readonly=True):
            return [dict(record) for record in await connection.fetch(query, *arguments)]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._opening:
            if self._pool is None:
                self._pool = await self._open_pool()
        async with self._pool.acquire(timeout=_CONNECT_TIMEOUT_S) as connection:
            yield connection

    async def _open_pool(self) -> Pool:
        try:
            return await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=_CONNECTIONS,
                timeout=_CONNECT_TIMEOUT_S,
                command_timeout=_COMMAND_TIMEOUT_S,
                statement_cache_size=0,  # behind PgBouncer, the next statement may meet another server
                server_settings={"application_name": "mediarepo import", **self._settings},
            )
        except (ValueError, asyncpg.InterfaceError) as exc:
            raise SourceError(f"{self.words} cannot be reached as it is configured: {exc}") from exc
