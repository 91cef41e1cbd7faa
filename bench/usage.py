"""`python -m bench.usage`: how quickly questions about a million media are answered, beside counting them anew."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from mediarepo.config.storage import DatabaseConfig
from mediarepo.db.database import Database
from mediarepo.db.migrations import upgrade
from mediarepo.db.retention import RetentionTable
from mediarepo.db.usage import UsageTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.model.retention import RetentionLimits
from mediarepo.model.usage import UsageBy, UsageClass, UsageFilter

_MEDIA = 1_000_000
_BATCH = 100_000
_USERS, _SERVERS = 5_000, 300
_TIMES = 5
_MS_PER_S = 1000
_BLOBS = """INSERT INTO blob (store, object_key, size_bytes, sha256_state, created_ts)
    SELECT 'main', 'bench/' || n, 1000 + n % 100000, 'unknown', 0 FROM generate_series($1::int, $2::int) n"""
_ROWS = """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, uploaded_by, created_ts,
        authenticated)
    SELECT CASE WHEN n % 2 = 0 THEN 'own.example' ELSE 'remote' || n % $3 || '.example' END, 'm' || n, 'ready',
        n % 2 = 1,
        (SELECT blob_id FROM blob WHERE store = 'main' AND object_key = 'bench/' || n),
        (ARRAY['image/png', 'video/mp4', 'application/pdf'])[1 + n % 3],
        CASE WHEN n % 2 = 0 THEN '@user' || n % $4 || ':own.example' END,
        1600000000000 + n::bigint * 100000, true
    FROM generate_series($1::int, $2::int) n"""
_COUNTED_ANEW = """SELECT m.server_name, count(*), sum(b.size_bytes) FROM media m JOIN blob b USING (blob_id)
    GROUP BY 1 ORDER BY 3 DESC LIMIT 50"""


async def _fill(database: Database) -> None:
    for start in range(0, _MEDIA, _BATCH):
        async with database.connection() as connection:
            await connection.execute(_BLOBS, start, start + _BATCH - 1)
            await connection.execute(_ROWS, start, start + _BATCH - 1, _SERVERS, _USERS)
    async with database.connection() as connection:
        await connection.execute("ANALYZE")


async def _milliseconds(work: Callable[[], Awaitable[object]]) -> float:
    took = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * _MS_PER_S)
    return median(took)


async def _measure(database: Database) -> None:
    table = UsageTable(database)
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "all, by class": lambda: table.of_media([UsageBy.CLASS], UsageFilter(), 50),
        "by server": lambda: table.of_media([UsageBy.SERVER_NAME], UsageFilter(), 50),
        "by user": lambda: table.of_media([UsageBy.USER_ID], UsageFilter(UsageClass.LOCAL), 50),
        "by type and month": lambda: table.of_media([UsageBy.CONTENT_TYPE, UsageBy.MONTH], UsageFilter(), 1000),
        "one user": lambda: table.of_media([], UsageFilter(user_id="@user2:own.example"), 1),
        "objects by store": table.of_objects,
        "counted anew, by server": lambda: _count_anew(database),
    }
    for name, ask in questions.items():
        print(f"{name:28} {await _milliseconds(ask):8.1f} ms")


async def _count_anew(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch(_COUNTED_ANEW)


async def _candidates(database: Database) -> int:
    limits = RetentionLimits(created_before_ts=None, idle_since_ts=1_650_000_000_000)
    return sum([len(page) async for page in RetentionTable(database).media(limits, remote=True)])


async def main() -> None:
    """Fill a database of its own, fold, ask."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        async with EmbeddedPostgres(Path(folder) / "postgres") as postgres:
            config = DatabaseConfig(url=postgres.dsn, schema="bench_usage", statement_timeout_ms=600_000)
            await upgrade(config)
            async with Database(config) as database:
                began = time.perf_counter()
                await _fill(database)
                print(f"{_MEDIA} media filled in {time.perf_counter() - began:.0f} s")
                began = time.perf_counter()
                folded = await UsageTable(database).fold()
                print(f"{folded} deltas folded in {time.perf_counter() - began:.1f} s")
                await _measure(database)
                began = time.perf_counter()
                found = await _candidates(database)
                took = time.perf_counter() - began
                print(f"retention: {found} candidates walked through in {took:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
