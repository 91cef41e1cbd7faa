"""A mistake in a statement is ours, and a schema that does not fit is told as that; neither is an outage."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import Database, DatabaseUnavailableError, SchemaIncompatibleError
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import Installation, fresh_name, installed, settings_for


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=postgres.dsn, schema=fresh_name())
    await upgrade(config)
    async with Database(config) as opened:
        yield opened


async def write(database: Database, query: str, *arguments: object) -> None:
    async with database.transaction() as connection:
        await connection.execute(query, *arguments)


@pytest.mark.parametrize(
    ("query", "arguments", "error"),
    [
        ("SELECT * FROM no_such_table", (), asyncpg.UndefinedTableError),
        ("SELECT no_such_column FROM media", (), asyncpg.UndefinedColumnError),
        ("SELECT $1::bigint", ("a",), asyncpg.DataError),
        ("SELECT $1::bigint", (1, 2), asyncpg.InterfaceError),
        ("SELECT no_such_function()", (), asyncpg.UndefinedFunctionError),
        ("SELEKT 1", (), asyncpg.PostgresSyntaxError),
    ],
)
async def test_a_mistake_in_a_statement_is_no_outage(
    database: Database, query: str, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await database.get(query, *arguments)
    with pytest.raises(error):
        await write(database, query, *arguments)

    await database.check()
    assert (database.in_use, database.waiting) == (0, 0)


async def end_oneself(database: Database) -> None:
    async with database.connection() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        async with database.connection() as other:
            await other.execute("SELECT pg_terminate_backend($1)", pid)
        await connection.execute("SELECT 1")


async def test_a_connection_that_ended_is_an_outage_that_passes(database: Database) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        await end_oneself(database)

    assert not isinstance(caught.value, SchemaIncompatibleError)
    await database.check()


@pytest.mark.parametrize("torn", ["ALTER TABLE media RENAME TO elsewhere", "ALTER SCHEMA {0} RENAME TO {0}_away"])
async def test_a_schema_torn_away_is_told_as_that_until_it_is_back(database: Database, torn: str) -> None:
    schema = database.config.db_schema
    await database.get("SELECT 1 FROM media")
    await write(database, torn.format(schema))

    for _ in range(2):
        with pytest.raises(SchemaIncompatibleError, match=schema):
            await database.get("SELECT 1 FROM media")
        with pytest.raises(SchemaIncompatibleError, match=schema):
            await write(database, "DELETE FROM media")

    back = "ALTER SCHEMA {0}_away RENAME TO {0}" if "SCHEMA" in torn else "ALTER TABLE elsewhere RENAME TO media"
    async with database._open() as connection:
        await connection.execute(back.format(schema))
    await database.get("SELECT 1 FROM media")
    await write(database, "DELETE FROM media")


async def test_the_tables_are_those_that_the_migrations_make(database: Database) -> None:
    schema = database.config.db_schema
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
        for (name,) in [row for row in rows if row[0] not in {"alembic_version", "schema_meta"}]:
            await connection.execute(f"ALTER TABLE {name} RENAME TO elsewhere")
            async with Database(database.config) as other:
                with pytest.raises(SchemaIncompatibleError, match=rf"\b{name}\b"):
                    await other.check()
            await connection.execute(f"ALTER TABLE elsewhere RENAME TO {name}")


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3)) as running:
        yield running


async def test_clients_are_told_500_of_a_mistake_and_503_of_a_torn_schema(own: Installation) -> None:
    media_id = await own.upload(b"abc")
    await own.rows("ALTER TABLE media RENAME COLUMN content_type TO elsewhere")
    mistake = await own.get(own.download_path(media_id))
    await own.rows("ALTER TABLE media RENAME COLUMN elsewhere TO content_type")
    await own.rows("ALTER TABLE thumbnail RENAME TO elsewhere")
    torn = await own.get(own.thumbnail_path(media_id))
    await own.restore_schema("ALTER TABLE elsewhere RENAME TO thumbnail")

    assert (mistake.status, mistake.json["errcode"]) == (500, "M_UNKNOWN")
    assert (torn.status, torn.json["errcode"]) == (503, "M_UNKNOWN")
    assert (await own.get(own.download_path(media_id))).body == b"abc"
