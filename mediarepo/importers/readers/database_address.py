"""Addresses of source databases: Postgres and SQLite."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.readers.source_database import Database
from mediarepo.importers.readers.source_postgres import PostgresDatabase
from mediarepo.importers.readers.source_sqlite import SqliteDatabase

_KEPT = ("host", "port", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "service")
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?!')(?:[^\s\\]|\\.)*))\s*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_OPTION = re.compile(r"(\w+)=(.*)", re.DOTALL)
_SCHEMES = ("postgres", "postgresql")


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A Postgres database; `dsn` is a URL for asyncpg, with every part as a query parameter."""

    dsn: str = field(repr=False)
    settings: tuple[tuple[str, str], ...] = ()
    words: str = "the Postgres database"


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A SQLite database's file."""

    path: Path


DatabaseAddress = PostgresAddress | SqliteAddress


def open_database(address: DatabaseAddress) -> Database:
    """Return a reader of the database; it connects at first use."""
    if isinstance(address, SqliteAddress):
        return SqliteDatabase(address.path)
    return PostgresDatabase(address.dsn, settings=dict(address.settings), words=address.words)


def postgres_address(arguments: Mapping[str, object]) -> PostgresAddress:
    """Parse libpq's parameters; the others override those of `dsn`."""
    given = {name: str(value) for name, value in arguments.items() if value is not None and value != ""}
    given = {**parse_conninfo(given.pop("dsn", "")), **given}
    database = given.get("database") or given.get("dbname")
    if database is not None and (database.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES)) or "=" in database):
        given = {**given, **parse_conninfo(database)}
        database = given.get("database") or parse_conninfo(database).get("dbname")
    query = {name: given[name] for name in _KEPT if name in given}
    if database is not None:
        query["database"] = database
    where = given.get("host", "the local socket") + (f":{given['port']}" if "port" in given else "")
    dsn = "postgresql://?" + urlencode(query, quote_via=quote, safe="")
    return PostgresAddress(dsn, tuple(_settings(given.get("options", ""))), f"the database {database} at {where}")


def parse_conninfo(text: str) -> dict[str, str]:
    """Parse a libpq connection string, a URL or keywords as in host=/run dbname='a b'.

    Raises SourceConfigError when it is not understood.
    """
    scheme, separator, _ = text.partition("://")
    if separator and scheme in _SCHEMES:
        return _parse_url(text)
    found: dict[str, str] = {}
    position = 0
    while text[position:].strip():
        match = _PAIR.match(text, position)
        if match is None:
            raise SourceConfigError("the database's connection string is not understood")
        found[match[1]] = _ESCAPED.sub(r"\1", match[3] if match[2] is None else match[2])
        position = match.end()
    return found


def _parse_url(text: str) -> dict[str, str]:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise SourceConfigError(f"the database's address is not understood: {exc}") from exc
    found = {
        "host": unquote(parts.hostname or ""),
        "port": "" if port is None else str(port),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    return {name: value for name, value in found.items() if value} | dict(parse_qsl(parts.query))


def _settings(options: str) -> list[tuple[str, str]]:
    """Read the -c NAME=VALUE of libpq's `options`."""
    words = shlex.split(options)
    pairs = [word.removeprefix("-c") for word in words if word != "-c"]
    return [(match[1], match[2]) for pair in pairs if (match := _OPTION.fullmatch(pair.removeprefix("--")))]
