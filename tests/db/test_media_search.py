"""Admins' searches use indexes: the pages that a query reads do not grow with the table."""

import json
from collections.abc import AsyncIterator

import pytest

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import Database
from mediarepo.db.media_admin import count_query, page_query
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.model.media_admin import Search, SearchOrder, SearchPlace
from mediarepo.model.mxc import Mxc
from tests.support.installation import fresh_name

COUNT, LIMIT = 100_000, 48
FEW_PAGES = 1_000
"""20 for each row found, for its marks and hashes; the table of media alone has 1,800."""


@pytest.fixture(scope="module")
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """100,000 media of 1,000 users: too many to read them all."""
    config = DatabaseConfig(url=postgres.dsn, schema=fresh_name())
    await upgrade(config)
    async with Database(config) as running:
        async with running.transaction() as connection:
            await connection.execute("SET LOCAL mediarepo.unjournaled = 'on'")
            await connection.execute(
                f"""INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
                    SELECT 'main', 'k' || n, n, sha256(n::text::bytea), 'verified', 0
                    FROM generate_series(1, {COUNT}) n"""
            )
            await connection.execute(
                """INSERT INTO media (server_name, media_id, remote, state, content_type, uploaded_by, created_ts,
                       blob_id, authenticated)
                   SELECT 'a.test', object_key, false, 'ready', 'image/png', '@u' || size_bytes % 1000 || ':a.test',
                       size_bytes, blob_id, true
                   FROM blob"""
            )
            await connection.execute(
                """INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, created_ts)
                   SELECT 'a.test', 'k' || n * 100, unnest(ARRAY['hold', 'pin']), '', '', 'operator', 1
                   FROM generate_series(1, 10) n"""
            )
        async with running.connection() as connection:
            await connection.execute("ANALYZE media, blob, media_mark")
        yield running


async def pages_read(database: Database, query: str, arguments: list[object]) -> int:
    async with database.connection() as connection:
        await connection.fetch(query, *arguments)
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *arguments)
    top = json.loads(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


SEARCHES = {
    "newest": Search(),
    "a user's": Search(user_id="@u7:a.test"),
    "by hash": Search(sha256=bytes(32)),
    "in a time": Search(created_after_ts=500, created_before_ts=900),
    "as a homeserver's admin": Search(viewer="a.test", hidden_from=("b.test",)),
    "of a type": Search(content_type="image/"),
    "held": Search(held=True),
    "pinned, as a homeserver's admin": Search(pinned=True, viewer="a.test"),
}


@pytest.mark.parametrize("name", SEARCHES)
async def test_a_page_of_a_search_reads_few_pages_of_the_database(database: Database, name: str) -> None:
    query, arguments = page_query(SEARCHES[name], SearchOrder.CREATED_TS, after=None, limit=LIMIT)

    assert await pages_read(database, query, arguments) < FEW_PAGES


async def test_a_page_far_down_the_list_reads_no_more_than_the_first(database: Database) -> None:
    place = SearchPlace(COUNT // 2, Mxc("a.test", f"k{COUNT // 2}"))
    query, arguments = page_query(Search(), SearchOrder.CREATED_TS, after=place, limit=LIMIT)

    assert await pages_read(database, query, arguments) < FEW_PAGES


async def test_what_reads_the_whole_table_is_noticed(database: Database) -> None:
    query, arguments = page_query(Search(upload_name="x"), SearchOrder.CREATED_TS, after=None, limit=LIMIT)

    assert await pages_read(database, query, arguments) > FEW_PAGES


async def test_counting_a_users_media_and_copies_reads_few_pages(database: Database) -> None:
    for search in (Search(user_id="@u7:a.test"), Search(sha256=bytes(32))):
        query, arguments = count_query(search, 10_000)

        assert await pages_read(database, query, arguments) < FEW_PAGES


async def test_counting_stops_at_the_limit(database: Database) -> None:
    query, arguments = count_query(Search(), 200)
    async with database.connection() as connection:
        row = (await connection.fetch(query, *arguments))[0]

    assert row["count"] == 200
    assert await pages_read(database, query, arguments) < FEW_PAGES


async def test_a_search_for_quarantined_media_looks_at_the_others_once(database: Database) -> None:
    """At each row and its blob, about three pages; all that could hide it would be ten."""
    query, arguments = page_query(Search(quarantined=True), SearchOrder.CREATED_TS, after=None, limit=LIMIT)

    assert await pages_read(database, query, arguments) < 4 * COUNT
