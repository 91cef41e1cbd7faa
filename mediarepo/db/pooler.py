"""Finds out whether a connection pooler stands before Postgres, and what it pools."""

from dataclasses import dataclass

import asyncpg

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import connect_arguments
from mediarepo.db.read_pool import BareConnection

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Pooling:
    """What is pooled: None (no pooler), "session", "transaction" or "statement"; and how that was seen."""

    mode: str | None
    detail: str = ""


async def pooling(config: DatabaseConfig) -> Pooling:
    """Look with two connections. Raises asyncpg's errors when one fails for another reason.

    A pooler makes up the process id that it announces; two clients of a session pooler never share a backend.
    """
    first: BareConnection = await asyncpg.connect(**connect_arguments(config), statement_cache_size=0)
    try:
        announced = first.get_server_pid()
        second: BareConnection = await asyncpg.connect(**connect_arguments(config), statement_cache_size=0)
        try:
            shared = await _share_a_backend(first, second)
        finally:
            second.terminate()
        backend = await first.fetchval("SELECT pg_backend_pid()")
        if not shared:
            return Pooling(None if announced == backend else "session")
        return await _transactions(first)
    finally:
        first.terminate()


async def _share_a_backend(first: BareConnection, second: BareConnection) -> bool:
    for _ in range(_TRIES):
        pids = [await one.fetchval("SELECT pg_backend_pid()") for one in (first, second)]
        if pids[0] == pids[1]:
            return True
    return False


async def _transactions(connection: BareConnection) -> Pooling:
    try:
        await connection.execute("BEGIN")
        await connection.execute("ROLLBACK")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return Pooling("statement", "there are no transactions")
    return Pooling("transaction", "prepared statements stay behind in other sessions")
