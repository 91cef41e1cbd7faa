import asyncio

import asyncpg
import pytest

from mediarepo.config.database import DatabaseConfig
from mediarepo.db.connections import Database
from mediarepo.db.errors import SchemaIncompatibleError
from mediarepo.db.migrations import downgrade, head_revision, migrations_folder, upgrade
from mediarepo.db.schema import SCHEMA_VERSION
from mediarepo.embedded.postgres import EmbeddedPostgres
from tests.support.installation import fresh_name


@pytest.fixture
def config(postgres: EmbeddedPostgres) -> DatabaseConfig:
    return DatabaseConfig(url=postgres.dsn, schema=fresh_name())


async def shape(config: DatabaseConfig) -> list[tuple[object, ...]]:
    """Describe every table, column and index of the schema."""
    connection = await asyncpg.connect(config.url)
    try:
        columns = await connection.fetch(
            """SELECT table_name, column_name, data_type, is_nullable, coalesce(column_default, '')
               FROM information_schema.columns WHERE table_schema = $1 ORDER BY 1, 2""",
            config.db_schema,
        )
        indexes = await connection.fetch(
            "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = $1 ORDER BY 1, 2",
            config.db_schema,
        )
        return [tuple(row) for row in [*columns, *indexes] if row[0] != "alembic_version"]
    finally:
        await connection.close()


async def test_up_down_and_up_again_gives_the_same_schema(config: DatabaseConfig) -> None:
    await upgrade(config)
    first = await shape(config)
    await downgrade(config, "base")
    empty = await shape(config)
    await upgrade(config)

    assert first
    assert empty == []
    assert await shape(config) == first


async def test_upgrading_twice_changes_nothing(config: DatabaseConfig) -> None:
    await upgrade(config)
    first = await shape(config)
    await upgrade(config)

    assert await shape(config) == first


async def test_any_number_of_processes_may_upgrade_at_once(config: DatabaseConfig) -> None:
    await asyncio.gather(*(upgrade(config) for _ in range(6)))

    async with Database(config) as database:
        row = await database.get("SELECT version, min_compatible FROM schema_meta")
    assert row is not None
    assert row["version"] == SCHEMA_VERSION


async def test_nothing_is_made_outside_our_schema(config: DatabaseConfig) -> None:
    connection = await asyncpg.connect(config.url)
    query = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public'"
    before = await connection.fetchval(query)
    await upgrade(config)

    assert await connection.fetchval(query) == before
    await connection.close()


async def test_a_schema_without_tables_names_the_command_that_helps(config: DatabaseConfig) -> None:
    async with Database(config) as database:
        with pytest.raises(SchemaIncompatibleError, match="mediarepo migrate"):
            await database.check()
        await upgrade(config)
        await database.check()


async def test_sizes_are_wide_enough_for_any_file(config: DatabaseConfig) -> None:
    await upgrade(config)

    sizes = [column for column in await shape(config) if column[1] == "size_bytes"]
    assert sizes
    assert {column[2] for column in sizes} == {"bigint"}


def test_the_newest_migration_is_the_one_the_code_was_written_for() -> None:
    assert int(head_revision()) == SCHEMA_VERSION
    assert (migrations_folder() / "env.py").is_file()
