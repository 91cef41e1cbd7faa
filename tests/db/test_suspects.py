"""Content that may be hidden is found by index, however many hashes are hidden."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db import media, unverified_hashes
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from tests.support.installation import fresh_name

HIDDEN = 100_000


async def hide_many(connection: asyncpg.Connection, size_bytes: str) -> None:
    """Hide hashes for one homeserver, and nothing else."""
    await connection.execute("TRUNCATE quarantined_hash")
    await connection.execute(
        f"""INSERT INTO quarantined_hash (sha256, size_bytes, quarantined_by, created_ts, owner, scope)
            SELECT sha256(n::text::bytea), {size_bytes}, '@admin:a.test', 1, 'a.test', 'a.test'
            FROM generate_series(1, {HIDDEN}) n"""
    )
    await connection.execute("ANALYZE quarantined_hash")


@pytest.fixture(scope="module")
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """A database where one homeserver hides many hashes, those of one length and as many of unknown length."""
    config = DatabaseConfig(url=postgres.dsn, schema=fresh_name())
    await upgrade(config)
    connection = await asyncpg.connect(config.url, server_settings={"search_path": config.db_schema})
    await hide_many(connection, "CASE WHEN n % 2 = 0 THEN 1000 END")
    for server_name, size_bytes in (("a.test", 1000), ("b.test", 1000), ("b.test", 999), ("far.test", 1000)):
        await connection.execute(
            """WITH b AS (INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, ownership, created_ts)
                   VALUES ('main', gen_random_uuid()::text, $2, sha256(gen_random_uuid()::text::bytea), 'claimed',
                       'borrowed', 1) RETURNING blob_id)
               INSERT INTO media
                   (server_name, media_id, state, remote, blob_id, content_type, authenticated, created_ts)
               SELECT $1, 'm' || $2, 'ready', $1 = 'far.test', blob_id, 'image/png', true, 1 FROM b""",
            server_name,
            size_bytes,
        )
    await connection.execute("ANALYZE")
    yield connection
    await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def plan_of(connection: asyncpg.Connection, query: str, *arguments: object) -> dict[str, Any]:
    """Run a query as prepared statements are run, once for warming up, and give its plan with what it read."""
    async with connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.fetch(query, *arguments)
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *arguments)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def pages(plan: dict[str, Any]) -> int:
    """Count the pages that a query read, those read by the functions it calls too."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize(
    ("server_name", "media_id", "viewer", "suspect"),
    [
        ("a.test", "m1000", "b.test", True),
        ("b.test", "m1000", "b.test", False),
        ("b.test", "m999", "b.test", False),
        ("far.test", "m1000", "a.test", True),
        ("far.test", "m1000", "b.test", False),
        ("far.test", "m1000", "", False),
    ],
)
async def test_media_with_a_claimed_hash_are_read_without_walking_through_what_is_hidden(
    database: asyncpg.Connection, server_name: str, media_id: str, viewer: str, *, suspect: bool
) -> None:
    row = await database.fetchrow(media._FIND, server_name, media_id, viewer)
    plan = await plan_of(database, media._FIND, server_name, media_id, viewer)

    assert row is not None
    assert row["hash_unverified"] is suspect
    assert pages(plan) < 100


async def test_suspects_are_found_without_walking_through_what_is_hidden_for_each(database: asyncpg.Connection) -> None:
    await hide_many(database, "1000")
    plan = await plan_of(database, unverified_hashes._SUSPECTS, 100)
    found = await database.fetch(unverified_hashes._SUSPECTS, 100)

    assert [row["size_bytes"] for row in found] == [1000, 1000, 1000]
    assert "Seq Scan" not in {one["Node Type"] for one in nodes(plan) if one.get("Relation Name") == "quarantined_hash"}
    assert pages(plan) < 200


async def test_walking_through_what_is_hidden_would_be_seen(database: asyncpg.Connection) -> None:
    assert pages(await plan_of(database, "SELECT count(created_ts) FROM quarantined_hash")) > 1000
