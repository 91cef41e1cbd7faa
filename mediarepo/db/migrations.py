"""Runs the migrations under a lock, so that any number of processes may try at once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import NOW_MS, connect_arguments
from mediarepo.db.read_pool import BareConnection
from mediarepo.db.tasks import SERVER_LEASE

_LOCK_KEY = 0x6D65_6469_6172_6570  # "mediarep"
_LOCK_TIMEOUT_MS = 120_000
LONGEST_PRESENCE_S = 60
_HOLDERS = f"""SELECT name FROM lease WHERE expires_ts > {NOW_MS}
    AND (starts_with(name, '{SERVER_LEASE}') OR starts_with(name, 'import ')) ORDER BY name"""
"""Leases of what runs on the schema; whoever was killed is gone when they run out."""


def migrations_folder() -> Path:
    """Find the migration files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def head_revision() -> str:
    """Return the id of the newest migration. Raises LookupError when the folder has none."""
    head = ScriptDirectory(str(migrations_folder())).get_current_head()
    if head is None:
        raise LookupError(f"no migrations in {migrations_folder()}")
    return head


async def upgrade(config: DatabaseConfig, revision: str = "head") -> None:
    """Bring the schema up to a revision, creating it if need be."""
    await _run(config, lambda alembic: command.upgrade(alembic, revision))


class RevisionError(ValueError):
    """There is no such revision, or it cannot be gone to from here; the message names it."""


class InUseError(Exception):
    """Servers or imports run on the schema; the message names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaContents:
    """What a schema holds; `revision` None: no tables. `holders` are the leases of servers and imports that run."""

    revision: str | None
    media: int = 0
    blobs: int = 0
    holders: tuple[str, ...] = ()

    def check_unused(self) -> None:
        """Check that no server or import runs. Raises InUseError naming those that do."""
        if self.holders:
            raise InUseError(
                f"still running: {', '.join(self.holders)}; stop them first (one that was killed counts for up to "
                f"{LONGEST_PRESENCE_S} s more)"
            )


async def describe(config: DatabaseConfig) -> SchemaContents:
    """Look at what a downgrade would take away, and whom it would surprise."""
    connection: BareConnection = await asyncpg.connect(**connect_arguments(config))
    try:
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        media = await connection.fetchval("SELECT count(*) FROM media")
        blobs = await connection.fetchval("SELECT count(*) FROM blob")
        holders = await _holders(connection)
    except asyncpg.UndefinedTableError:
        return SchemaContents(revision=None)
    finally:
        await connection.close()
    return SchemaContents(revision=revision, media=media, blobs=blobs, holders=holders)


async def _holders(connection: BareConnection) -> tuple[str, ...]:
    if await connection.fetchval("SELECT to_regclass('lease') IS NULL"):
        return ()  # a revision from before there were leases
    return tuple(row["name"] for row in await connection.fetch(_HOLDERS))


async def downgrade(config: DatabaseConfig, revision: str) -> None:
    """Take the schema back to a revision; "base" removes every table. InUseError while servers or imports run."""

    def action(alembic: Config) -> None:
        connection: Connection = alembic.attributes["connection"]
        if connection.execute(text("SELECT to_regclass('lease') IS NOT NULL")).scalar():
            connection.execute(text("LOCK TABLE lease IN ACCESS EXCLUSIVE MODE"))
            holders = tuple(connection.execute(text(_HOLDERS)).scalars())
            SchemaContents(revision=revision, holders=holders).check_unused()
        command.downgrade(alembic, revision)

    await _run(config, action)


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
    try:
        action(alembic)
    except CommandError as exc:
        raise RevisionError(f"the schema cannot be migrated so: {exc}") from exc
