import asyncio

import asyncpg
import pytest

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import SCHEMA_VERSION, Database, SchemaIncompatibleError
from mediarepo.db.migrations import downgrade, head_revision, migrations_folder, upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from tests.support.installation import fresh_name
from tests.support.schemas import make_schema


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


async def test_marks_that_had_no_owner_go_on_hiding_and_belong_to_who_set_them(config: DatabaseConfig) -> None:
    await upgrade(config, "0007")
    connection = await asyncpg.connect(config.url, server_settings={"search_path": config.db_schema})
    media = """INSERT INTO media (server_name, media_id, state, remote, content_type, created_ts, authenticated,
        quarantined_by, protected, held_by, pinned_by) VALUES ($1, $2, 'missing', $3, 'a/b', 1, true, $4, $5, $6, $7)"""
    await connection.execute(media, "a.test", "own", False, "@admin:a.test", False, "operator", "@admin:a.test")
    await connection.execute(media, "a.test", "operators", False, "operator", True, None, None)
    await connection.execute(media, "a.test", "imported", False, "system", False, None, None)
    await connection.execute(media, "far.test", "remote", True, "@admin:b.test", False, None, None)
    await connection.execute("INSERT INTO import_source (name, kind, created_ts) VALUES ('old', 'synapse', 1)")
    await connection.execute(
        """INSERT INTO import_item (source_id, server_name, media_id, kind, state, quarantined_by, fingerprint, run_id,
               seen_run_id, updated_ts)
           SELECT source_id, 'a.test', 'imported', 'local', 'committed', 'system', '', 1, 1, 1 FROM import_source"""
    )
    await connection.execute("INSERT INTO quarantined_hash VALUES ($1, '@admin:b.test', NULL, 1)", bytes(32))
    await connection.execute("INSERT INTO quarantined_hash VALUES ($1, 'command line', NULL, 1)", bytes([1] * 32))
    await upgrade(config)
    marks = await connection.fetch("SELECT media_id, kind, owner, scope FROM media_mark ORDER BY 1, 2")
    hashes = await connection.fetch("SELECT owner, scope FROM quarantined_hash ORDER BY sha256")
    reasons = await connection.fetch("SELECT media_id, reason FROM media_mark WHERE reason IS NOT NULL")
    await connection.close()

    assert [tuple(row) for row in marks] == [
        ("imported", "quarantine", "a.test", "a.test"),
        ("operators", "protection", "a.test", "a.test"),
        ("operators", "quarantine", "", ""),
        ("own", "hold", "", ""),
        ("own", "pin", "a.test", "a.test"),
        ("own", "quarantine", "a.test", "a.test"),
        ("remote", "quarantine", "b.test", ""),
    ]
    assert [tuple(row) for row in hashes] == [("b.test", ""), ("", "")]
    assert [tuple(row) for row in reasons] == [("imported", "imported from old")]


async def test_changes_of_quarantine_keep_their_numbers_for_whoever_was_told_of_them(config: DatabaseConfig) -> None:
    await upgrade(config, "0010")
    connection = await asyncpg.connect(config.url, server_settings={"search_path": config.db_schema})
    for name, remote in (("a.test", False), ("b.test", False), ("far.test", True)):
        await connection.execute(
            """INSERT INTO media (server_name, media_id, state, remote, content_type, created_ts, authenticated)
               VALUES ($1, 'x', 'missing', $2, 'a/b', 1, true)""",
            name,
            remote,
        )
    change = """INSERT INTO quarantine_change (server_name, media_id, quarantined, created_ts, scope)
        VALUES ($1, 'x', true, 1, $2)"""
    for name, scope in (("b.test", ""), ("a.test", ""), ("far.test", "b.test"), ("far.test", "")):
        await connection.execute(change, name, scope)
    await upgrade(config)
    rows = await connection.fetch(
        "SELECT viewer, array_agg(change_id ORDER BY change_id) FROM quarantine_change GROUP BY 1 ORDER BY 1"
    )
    await downgrade(config, "0010")
    await connection.execute(change, "a.test", "")
    left = [row[0] for row in await connection.fetch("SELECT change_id FROM quarantine_change ORDER BY 1")]
    await connection.close()

    assert [tuple(row) for row in rows] == [("", [1, 2, 3, 4]), ("a.test", [2, 4]), ("b.test", [1, 3, 4])]
    assert left == [1, 2, 3, 4, 5]


async def test_what_tests_get_is_what_the_migrations_make(postgres: EmbeddedPostgres) -> None:
    config, *repeated = (DatabaseConfig(url=postgres.dsn, schema=fresh_name()) for _ in range(3))
    await upgrade(config)
    expected = str(await shape(config)).replace(config.db_schema, "S")
    for one in repeated:
        await make_schema(one)
        assert str(await shape(one)).replace(one.db_schema, "S") == expected
        await make_schema(one)  # a second time it changes nothing
        async with Database(one) as database:
            await database.check()
