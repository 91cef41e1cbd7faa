"""Runs the migrations under a lock, so that any number of processes may try at once."""

from collections.abc import Callable
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import connect_arguments
from mediarepo.db.read_pool import BareConnection

_LOCK_KEY = 0x6D65_6469_6172_6570  # "mediarep"
_LOCK_TIMEOUT_MS = 120_000


def migrations_folder() -> Path:
    """Find the migration files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def head_revision() -> str:
    """Name the newest migration."""
    head = ScriptDirectory(str(migrations_folder())).get_current_head()
    if head is None:
        raise LookupError(f"no migrations in {migrations_folder()}")
    return head


async def upgrade(config: DatabaseConfig, revision: str = "head") -> None:
    """Bring the schema up to a revision, creating it if need be."""
    await _run(config, lambda alembic: command.upgrade(alembic, revision))


async def downgrade(config: DatabaseConfig, revision: str) -> None:
    """Take the schema back to a revision; "base" removes every table."""
    await _run(config, lambda alembic: command.downgrade(alembic, revision))


async def _run(config: DatabaseConfig, action: Callable[[Config], None]) -> None:
    async def connect() -> BareConnection:
        arguments = connect_arguments(config) | {"command_timeout": None}
        arguments["server_settings"] = {"application_name": "mediarepo migrate"}
        return await asyncpg.connect(**arguments)

    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=connect)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_apply, config.db_schema, action)
    finally:
        await engine.dispose()


def _apply(connection: Connection, schema: str, action: Callable[[Config], None]) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    connection.execute(text(f'SET LOCAL search_path = "{schema}"'))
    alembic = Config()
    alembic.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    alembic.attributes.update(connection=connection, schema=schema)
    action(alembic)
