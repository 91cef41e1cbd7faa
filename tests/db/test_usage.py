"""The counters against the tables they count, whatever happens to the rows."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from mediarepo.config.settings import StoreFor
from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import Connection, Database
from mediarepo.db.failed_items import FailedItems
from mediarepo.db.migrations import downgrade, upgrade
from mediarepo.db.usage import UsageDayTable, UsageTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.model.usage import ObjectUsage, Usage, UsageBy, UsageClass, UsageFilter
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.media_admin import UsageReports
from mediarepo.services.stores import Stores
from tests.support.installation import fresh_name

ALL = UsageFilter()
TRUTH = """SELECT CASE WHEN m.state = 'trashed' THEN 'trashed' WHEN m.remote THEN 'remote' ELSE 'local' END AS class,
        m.server_name, count(*) AS media_count, coalesce(sum(b.size_bytes), 0)::bigint AS size_bytes
    FROM media m LEFT JOIN blob b USING (blob_id) WHERE m.state IN ('ready', 'missing', 'trashed')
    GROUP BY 1, 2 ORDER BY 1, 2"""
TRUE_OBJECTS = """SELECT store, CASE WHEN ownership = 'borrowed' THEN 'borrowed'
        WHEN parent_blob_id IS NOT NULL THEN 'thumbnails' ELSE 'content' END,
        count(*), sum(size_bytes)::bigint FROM blob WHERE missing_ts IS NULL GROUP BY 1, 2 ORDER BY 1, 2"""


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=postgres.dsn, schema=fresh_name())
    await upgrade(config)
    async with Database(config) as running:
        yield running


async def add_blob(connection: Connection, size_bytes: int, parent: int | None = None) -> int:
    blob_id: int = await connection.fetchval(
        """INSERT INTO blob (store, object_key, size_bytes, sha256_state, parent_blob_id, created_ts)
           VALUES ('main', gen_random_uuid()::text, $1, 'unknown', $2, 0) RETURNING blob_id""",
        size_bytes,
        parent,
    )
    return blob_id


async def add_media(connection: Connection, name: str, blob_id: int | None, **facts: object) -> None:
    row = {
        "server_name": "a.example",
        "state": "ready",
        "remote": False,
        "content_type": "image/png",
        "uploaded_by": "@u:a.example",
        "created_ts": 1_700_000_000_000,
        "expires_ts": None,
        **facts,
    }
    names, values = ", ".join(row), ", ".join(f"${number}" for number in range(3, 3 + len(row)))
    await connection.execute(
        f"INSERT INTO media (media_id, blob_id, authenticated, {names}) VALUES ($1, $2, true, {values})",
        name,
        blob_id,
        *row.values(),
    )


async def counted(database: Database) -> tuple[list[Usage], list[ObjectUsage]]:
    table = UsageTable(database)
    media = await table.of_media([UsageBy.CLASS, UsageBy.SERVER_NAME], ALL, 100)
    return sorted(media, key=lambda one: sorted(one.group.items())), await table.of_objects()


async def truth(database: Database) -> tuple[list[Usage], list[ObjectUsage]]:
    async with database.connection() as connection:
        media = [
            Usage({"class": row["class"], "server_name": row["server_name"]}, row["media_count"], row["size_bytes"])
            for row in await connection.fetch(TRUTH)
        ]
        return media, [ObjectUsage(*row.values()) for row in await connection.fetch(TRUE_OBJECTS)]


STEPS = [
    "UPDATE media SET state = 'trashed', trashed_ts = 1 WHERE media_id = $1 AND state = 'ready'",
    "UPDATE media SET state = 'ready', trashed_ts = NULL WHERE media_id = $1 AND state = 'trashed'",
    "UPDATE media SET state = 'tombstone', trashed_ts = NULL, blob_id = NULL WHERE media_id = $1",
    "UPDATE media SET state = 'missing' WHERE media_id = $1 AND state = 'ready'",
    "UPDATE media SET blob_id = (SELECT max(blob_id) FROM blob) WHERE media_id = $1 AND state = 'ready'",
    "UPDATE media SET content_type = 'video/mp4' WHERE media_id = $1",
    "UPDATE media SET upload_name = 'a' WHERE media_id = $1",
    "DELETE FROM media WHERE media_id = $1",
    "UPDATE blob SET missing_ts = 1 WHERE blob_id = (SELECT blob_id FROM media WHERE media_id = $1)",
    "UPDATE blob SET missing_ts = NULL WHERE blob_id = (SELECT blob_id FROM media WHERE media_id = $1)",
    "DELETE FROM blob b WHERE NOT EXISTS (SELECT FROM media m WHERE m.blob_id = b.blob_id) AND $1 <> ''",
]


def reports(database: Database) -> UsageReports:
    stores = Stores(by_name={}, store_for=StoreFor())
    isolation = BatchIsolation(failed=FailedItems(database), stores=stores, on_failure=lambda _: None)
    return UsageReports(table=UsageTable(database), days=UsageDayTable(database), isolation=isolation)


@pytest.mark.parametrize("seed", range(5))
async def test_after_any_history_the_counters_are_what_counting_would_give(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    async with database.connection() as connection:
        for number in range(40):
            blob_id = await add_blob(connection, chance.randrange(10_000))
            await add_media(
                connection, f"m{number}", blob_id, remote=chance.random() < 0.5, server_name=f"s{number % 3}"
            )
        for _ in range(120):
            await connection.execute(chance.choice(STEPS), f"m{chance.randrange(40)}")
            if chance.random() < 0.1:
                await reports(database).fold()

    assert await counted(database) == await truth(database)


async def test_folding_changes_no_sum_and_leaves_no_deltas(database: Database) -> None:
    async with database.connection() as connection:
        for number in range(10):
            await add_media(connection, f"m{number}", await add_blob(connection, 100))
        await connection.execute("DELETE FROM media WHERE media_id = 'm0'")
        before = await counted(database)
        folded = await reports(database).fold()
        left = await connection.fetchval("SELECT count(*) FROM media_usage_delta")

    assert folded == 21
    assert left == 0
    assert await counted(database) == before == await truth(database)


async def test_folding_by_many_at_once_while_rows_come_counts_each_once(database: Database) -> None:
    async def add(number: int) -> None:
        async with database.connection() as connection:
            for index in range(10):
                await add_media(connection, f"m{number}-{index}", await add_blob(connection, 7))

    table, folding = UsageTable(database), reports(database)
    await asyncio.gather(*(add(number) for number in range(6)), *(folding.fold() for _ in range(6)))
    await asyncio.gather(*(folding.fold() for _ in range(3)))

    assert await counted(database) == await truth(database)
    assert (await table.of_media([], ALL, 1))[0] == Usage({}, 60, 420)


async def test_usage_splits_by_all_it_can(database: Database) -> None:
    async with database.connection() as connection:
        await add_media(connection, "a", await add_blob(connection, 5), content_type="Image/PNG; x=y")
        await add_media(connection, "b", await add_blob(connection, 6), content_type="made/up", created_ts=2**62)
        await add_media(connection, "c", None, state="pending", expires_ts=5)
        await add_media(connection, "d", await add_blob(connection, 7), uploaded_by=None, remote=True)
    table = UsageTable(database)

    by_type = await table.of_media([UsageBy.CONTENT_TYPE, UsageBy.MONTH], UsageFilter(UsageClass.LOCAL), 10)
    by_user = await table.of_media([UsageBy.USER_ID], UsageFilter(), 10)
    of_user = await table.of_media([], UsageFilter(user_id="@u:a.example"), 10)

    assert by_type == [
        Usage({"content_type": "other", "month": "9999-12"}, 1, 6),
        Usage({"content_type": "image", "month": "2023-11"}, 1, 5),
    ]
    assert by_user == [Usage({"user_id": "@u:a.example"}, 2, 11), Usage({"user_id": ""}, 1, 7)]
    assert of_user == [Usage({}, 2, 11)]


async def test_what_was_there_before_the_counters_is_counted(postgres: EmbeddedPostgres) -> None:
    config = DatabaseConfig(url=postgres.dsn, schema=fresh_name())
    await upgrade(config)
    await downgrade(config, "0003")
    async with Database(config) as old, old._pool.acquire() as connection:  # type: ignore[union-attr]
        await add_media(connection, "a", await add_blob(connection, 5))
    await upgrade(config)
    async with Database(config) as database:
        assert await counted(database) == await truth(database)
        assert (await counted(database))[0] == [Usage({"class": "local", "server_name": "a.example"}, 1, 5)]


async def test_rows_changed_under_another_search_path_are_counted_too(database: Database) -> None:
    schema = database.config.db_schema
    async with database.connection() as connection:
        await connection.execute("SET search_path TO pg_catalog")
        await connection.execute(
            f"INSERT INTO {schema}.blob (store, object_key, size_bytes, sha256_state, created_ts)"
            " VALUES ('main', 'x', 3, 'unknown', 0)"
        )
        await connection.execute(f"SET search_path TO {schema}")

    assert await UsageTable(database).of_objects() == [ObjectUsage("main", "content", 1, 3)]
