"""Checks the Postgres database from connecting to it to its settings, and says what to do about what is wrong."""

import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import SchemaIncompatibleError, check_compatible, check_tables, connect_arguments
from mediarepo.db.pooler import pooling
from mediarepo.db.read_pool import BareConnection
from mediarepo.model.findings import Finding, Subject

_DATABASE = Subject("database")
_OLDEST, _OLDEST_NAME = 130_000, "13"
_SLOW_MS = 20
_CLOCK_MS = 5_000
_BEHIND_S = 60
_ROUNDS = 9


async def examine_database(config: DatabaseConfig) -> AsyncIterator[Finding]:
    """Check one thing after another; a database that cannot be reached gives one finding."""
    try:
        connection: BareConnection = await asyncpg.connect(**connect_arguments(config), statement_cache_size=0)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as exc:
        yield _DATABASE.problem("connection", *explain_connection(exc, config))
        return
    try:
        yield _DATABASE.ok("connection", f"{where(config)} accepts role {role_of(config)}")
        for check in _CHECKS:
            try:
                for finding in await check(connection, config):
                    yield finding
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
                name = check.__name__.strip("_").replace("_", " ")
                yield _DATABASE.problem(name, f"this could not be read: {exc}")
                if connection.is_closed():
                    return
    finally:
        connection.terminate()


def where(config: DatabaseConfig) -> str:
    """Name the server and the database without the password."""
    parts = urlsplit(config.url)
    host = parse_qs(parts.query).get("host", [parts.hostname or "the local socket"])[0]
    port = f":{parts.port}" if parts.port else ""
    return f"{host}{port}/{unquote(parts.path.lstrip('/')) or role_of(config)}"


def role_of(config: DatabaseConfig) -> str:
    """Name the role that connects."""
    return unquote(urlsplit(config.url).username or "") or "of the system user"


_Words = tuple[str, str]


def explain_connection(exc: BaseException, config: DatabaseConfig) -> _Words:
    """Say why no connection came about, and what to do."""
    database, role = where(config).rpartition("/")[2], role_of(config)
    said = str(exc).strip() or type(exc).__name__
    for kind, mark, detail, advice in _REASONS:
        if isinstance(exc, kind) and mark in said:
            words = {"where": where(config), "role": role, "database": database, "said": said}
            return detail.format(**words), advice.format(**words)
    return f"{where(config)} cannot be used: {said}", "look into the log of Postgres"


_BAD_PASSWORD = (
    "the password of role {role} is wrong",
    "set database.password to the role's, or give the role this one: ALTER ROLE {role} PASSWORD '...'",
)
_REASONS: tuple[tuple[type[BaseException], str, str, str], ...] = (
    (asyncpg.InvalidPasswordError, "", *_BAD_PASSWORD),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "does not exist",
        "there is no role {role}",
        "create it: CREATE ROLE {role} LOGIN PASSWORD '...'; or correct the user in database.url",
    ),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "pg_hba.conf",
        "Postgres lets role {role} not in from this machine ({said})",
        "add a line for it to pg_hba.conf and reload Postgres: host {database} {role} ADDRESS/32 scram-sha-256",
    ),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "not permitted to log in",
        "role {role} may not log in",
        "ALTER ROLE {role} LOGIN",
    ),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "",
        "Postgres does not accept role {role}: {said}",
        "over a unix socket, `peer` wants the system user to have the role's name; else give a password",
    ),
    (
        asyncpg.InvalidCatalogNameError,
        "",
        "there is no database {database}",
        "create it: CREATE DATABASE {database} OWNER {role}; or correct the name in database.url",
    ),
    (
        asyncpg.TooManyConnectionsError,
        "",
        "no connection is free: {said}",
        "raise max_connections or the role's limit (ALTER ROLE {role} CONNECTION LIMIT -1), or lower pool_size",
    ),
    (asyncpg.CannotConnectNowError, "", "Postgres does not take connections now: {said}", "wait, then try again"),
    (
        asyncpg.PostgresError,
        "unsupported startup parameter",
        "PgBouncer refuses a startup parameter: {said}",
        "name it in ignore_startup_parameters and set it by ALTER ROLE {role} SET ...; or connect to Postgres itself",
    ),
    (
        asyncpg.PostgresError,
        "no such database",
        "PgBouncer has no database {database}",
        "add it to [databases] in pgbouncer.ini",
    ),
    (asyncpg.PostgresError, "no such user", "PgBouncer does not know role {role}", "add it to PgBouncer's auth_file"),
    (asyncpg.PostgresError, "authentication failed", *_BAD_PASSWORD),
    (
        asyncpg.PostgresError,
        "permission denied for database",
        "role {role} may not connect to {database}",
        ("GRANT CONNECT ON DATABASE {database} TO {role}"),
    ),
    (
        socket.gaierror,
        "",
        "the host name in database.url does not resolve ({where})",
        "correct the host, or the name server of this machine",
    ),
    (
        ConnectionRefusedError,
        "",
        "nothing listens at {where}",
        "start Postgres, correct host and port in database.url, or set listen_addresses in postgresql.conf",
    ),
    (
        FileNotFoundError,
        "",
        "there is no socket of Postgres at {where}",
        "start Postgres, or correct ?host= (a folder) and port in database.url",
    ),
    (PermissionError, "", "the socket at {where} may not be used by this user", "correct its permissions"),
    (
        TimeoutError,
        "",
        "{where} does not answer in time",
        "correct the address, or let a firewall pass it; a server that accepts and stays silent is no Postgres",
    ),
    (
        OSError,
        "",
        "{where} does not answer like Postgres: {said}",
        "correct host and port in database.url: something else may listen there",
    ),
    (
        asyncpg.ConnectionDoesNotExistError,
        "",
        "{where} closed the connection at once",
        "correct host and port in database.url: something else may listen there",
    ),
)


async def _version(connection: BareConnection, _: DatabaseConfig) -> list[Finding]:
    number, name = await _row(connection, "SELECT current_setting('server_version_num')::int, version()")
    text = " ".join(str(name).split()[:2])
    if number < _OLDEST:
        return [_DATABASE.problem("version", f"{text} is too old", f"upgrade to Postgres {_OLDEST_NAME} or later")]
    return [_DATABASE.ok("version", text)]


async def _pooling(_: BareConnection, config: DatabaseConfig) -> list[Finding]:
    found = await pooling(config)
    if found.mode is None:
        return [_DATABASE.ok("pooling", "no pooler stands in between")]
    if found.mode == "session":
        return [_DATABASE.ok("pooling", "a pooler (PgBouncer) gives each connection a session of its own")]
    advice = "set pool_mode = session in pgbouncer.ini (for this database alone, if you like), or go to Postgres itself"
    return [_DATABASE.problem("pooling", f"a pooler (PgBouncer) pools {found.mode}s: {found.detail}", advice)]


async def _standby(connection: BareConnection, _: DatabaseConfig) -> list[Finding]:
    standby, read_only = await _row(
        connection, "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')"
    )
    if standby:
        return [_DATABASE.problem("primary", "this is a standby: it cannot be written", "name the primary in the url")]
    if read_only == "on":
        advice = "ALTER ROLE or DATABASE ... RESET default_transaction_read_only"
        return [_DATABASE.problem("primary", "transactions are read-only by default", advice)]
    return [_DATABASE.ok("primary", "can be written")]


async def _schema(connection: BareConnection, config: DatabaseConfig) -> list[Finding]:
    schema = config.db_schema
    path = await connection.fetchval("SELECT current_setting('search_path')")
    if schema not in {part.strip(' "') for part in str(path).split(",")}:
        advice = f"ALTER ROLE {role_of(config)} SET search_path = {schema}; a pooler has dropped ours"
        return [_DATABASE.problem("schema", f"search_path is {path}, without {schema}", advice)]
    try:
        await check_compatible(connection, schema)
        await check_tables(connection, schema)
    except SchemaIncompatibleError as exc:
        words, command, rest = exc.message.partition(": run ")
        return [_DATABASE.problem("schema", words, f"run {rest}" if command else "see docs/restore.md")]
    version = await connection.fetchval("SELECT version FROM schema_meta")
    return [_DATABASE.ok("schema", f"{schema} has version {version} and all tables")]


async def _rights(connection: BareConnection, config: DatabaseConfig) -> list[Finding]:
    schema, role = config.db_schema, role_of(config)
    there, usage, create, in_database = await _row(
        connection,
        """SELECT to_regnamespace(quote_ident($1)) IS NOT NULL,
                  CASE WHEN to_regnamespace(quote_ident($1)) IS NOT NULL THEN has_schema_privilege($1, 'USAGE') END,
                  CASE WHEN to_regnamespace(quote_ident($1)) IS NOT NULL THEN has_schema_privilege($1, 'CREATE') END,
                  has_database_privilege(current_database(), 'CREATE')""",
        schema,
    )
    if not there and not in_database:
        advice = f"CREATE SCHEMA {schema} AUTHORIZATION {role}"
        return [_DATABASE.problem("rights", f"there is no schema {schema}, and {role} may not create it", advice)]
    if there and not (usage and create):
        advice = f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}, or make the role its owner"
        return [_DATABASE.problem("rights", f"{role} may not use schema {schema}, or not create tables there", advice)]
    denied = await connection.fetch(
        """SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind IN ('r', 'p')
           AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                    AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')) ORDER BY 1""",
        schema,
    )
    if denied:
        names = ", ".join(row[0] for row in denied[:5])
        advice = f"ALTER TABLE ... OWNER TO {role}, or GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"
        return [_DATABASE.problem("rights", f"{role} may not read and write {len(denied)} tables ({names})", advice)]
    return [_DATABASE.ok("rights", f"{role} may read and write all there is")]


async def _latency(connection: BareConnection, _: DatabaseConfig) -> list[Finding]:
    took: list[float] = []
    for _round in range(_ROUNDS):
        began = time.perf_counter()
        await connection.fetchval("SELECT 1")
        took.append((time.perf_counter() - began) * 500)  # two round trips: it is parsed, then run
    median = statistics.median(took)
    if median > _SLOW_MS:
        advice = "each download waits for one or two round trips: move mediarepo and Postgres closer to each other"
        return [_DATABASE.warning("latency", f"a round trip takes {median:.1f} ms", advice)]
    return [_DATABASE.ok("latency", f"a round trip takes {median:.2f} ms")]


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of Postgres with a value that works against us."""

    name: str
    bad: frozenset[str]
    harm: str
    advice: str
    fatal: bool = False


_SETTINGS = (
    _Setting(
        "server_encoding",
        frozenset({"SQL_ASCII", "LATIN1", "LATIN9", "WIN1252"}),
        "names outside of it cannot be stored",
        "create the database with ENCODING 'UTF8' TEMPLATE template0",
        fatal=True,
    ),
    _Setting("fsync", frozenset({"off"}), "a crash of the machine destroys the database", "set fsync = on"),
    _Setting(
        "full_page_writes",
        frozenset({"off"}),
        "a crash of the machine can destroy the database",
        "set full_page_writes = on",
    ),
    _Setting(
        "synchronous_commit",
        frozenset({"off"}),
        "a crash loses uploads that clients were told are stored",
        "set synchronous_commit = on, at least for this role",
    ),
    _Setting("autovacuum", frozenset({"off"}), "tables grow, and plans become wrong", "set autovacuum = on"),
    _Setting(
        "default_transaction_isolation",
        frozenset({"serializable", "repeatable read"}),
        "concurrent work ends in serialization errors",
        "ALTER ROLE ... SET default_transaction_isolation = 'read committed'",
    ),
)


async def _settings(connection: BareConnection, _: DatabaseConfig) -> list[Finding]:
    found = []
    for setting in _SETTINGS:
        value = await connection.fetchval("SELECT current_setting($1)", setting.name)
        if value in setting.bad:
            report = _DATABASE.problem if setting.fatal else _DATABASE.warning
            found.append(report("settings", f"{setting.name} is {value}: {setting.harm}", setting.advice))
    return found or [_DATABASE.ok("settings", "nothing works against us")]


async def _connections(connection: BareConnection, config: DatabaseConfig) -> list[Finding]:
    most, used, role_limit, database_limit = await _row(
        connection,
        """SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
                  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                  (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
                  (SELECT datconnlimit FROM pg_database WHERE datname = current_database())""",
    )
    detail = f"{used} of {most} are in use; each process takes up to {config.pool_size}"
    for limit, whose in ((role_limit, "the role"), (database_limit, "the database")):
        if 0 <= limit < config.pool_size:
            advice = f"raise it to at least pool_size ({config.pool_size}) times the number of processes"
            return [_DATABASE.problem("connections", f"{whose} has a limit of {limit} connections", advice)]
    if most - used < config.pool_size:
        advice = "raise max_connections, or lower database.pool_size or the number of processes"
        return [_DATABASE.warning("connections", detail, advice)]
    return [_DATABASE.ok("connections", detail)]


async def _clock(connection: BareConnection, _: DatabaseConfig) -> list[Finding]:
    there_ms = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    apart_ms = abs(there_ms - time.time_ns() // 1_000_000)
    if apart_ms > _CLOCK_MS:
        detail = f"the clock of Postgres and this machine's are {apart_ms / 1000:.0f} s apart"
        return [_DATABASE.warning("clock", detail, "set the time (NTP) on both")]
    return [_DATABASE.ok("clock", "agrees with this machine's")]


async def _size(connection: BareConnection, config: DatabaseConfig) -> list[Finding]:
    whole, ours = await _row(
        connection,
        """SELECT pg_database_size(current_database()), (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)
           FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind = 'r')""",
        config.db_schema,
    )
    return [_DATABASE.ok("size", f"{int(ours) >> 20} MiB of ours in a database of {int(whole) >> 20} MiB")]


async def _replicas(connection: BareConnection, _: DatabaseConfig) -> list[Finding]:
    rows = await connection.fetch(
        "SELECT coalesce(application_name, ''), coalesce(extract(epoch FROM replay_lag), 0)::float "
        "FROM pg_stat_replication"
    )
    late = [f"{name} by {lag:.0f} s" for name, lag in rows if lag > _BEHIND_S]
    if late:
        return [_DATABASE.warning("replicas", f"behind: {', '.join(late)}", "a failover now would lose that much")]
    return [_DATABASE.ok("replicas", f"{len(rows)} connected" if rows else "none connected")]


async def _row(connection: BareConnection, query: str, *arguments: object) -> asyncpg.Record:
    row = await connection.fetchrow(query, *arguments)
    if row is None:
        raise asyncpg.InterfaceError("no row came")
    return row


_Check = Callable[[BareConnection, DatabaseConfig], Awaitable[list[Finding]]]
_CHECKS: tuple[_Check, ...] = (
    _version,
    _standby,
    _pooling,
    _rights,
    _schema,
    _latency,
    _settings,
    _connections,
    _clock,
    _size,
    _replicas,
)
