"""A real PgBouncer between a mediarepo and its database."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.storm.postgres import Door
from tests.storm.site import bouncer
from tests.support.installation import Installation, installed, settings_for


async def uploads_through(
    mode: str, postgres: EmbeddedPostgres, s3: EmbeddedS3, folder: Path
) -> tuple[list[int], set[str]]:
    """Upload forty files at once, twice, with the database behind PgBouncer; gives statuses and words."""
    direct = settings_for(postgres, s3)
    await upgrade(direct.database)
    await ask(postgres, f"ALTER ROLE mediarepo SET search_path = {direct.database.db_schema}")
    door, lacking = Door(), list[str]()
    door.target = f"{parse_qs(urlsplit(postgres.dsn).query)['host'][0]}/.s.PGSQL.5432"
    await door.start()
    try:
        async with bouncer(folder, door, lacking, mode=mode) as port:
            if port is None:
                pytest.skip("PgBouncer is not installed here")
            database = {"url": f"postgresql://mediarepo@127.0.0.1:{port}/mediarepo"}
            settings = direct.model_copy(update={"database": direct.database.model_copy(update=database)})
            async with installed(settings, migrate=False) as own:
                answers = [one for _ in range(2) for one in await asyncio.gather(*(upload(own, n) for n in range(40)))]
    finally:
        await door.stop()
        await ask(postgres, "ALTER ROLE mediarepo RESET search_path")
    return [status for status, _ in answers], {words for _, words in answers}


async def upload(own: Installation, number: int) -> tuple[int, str]:
    answer = await own.request("POST", "/_matrix/media/v3/upload", data=b"%d" % number)
    return answer.status, str(answer.json.get("error", ""))


async def ask(postgres: EmbeddedPostgres, query: str) -> Any:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def test_pgbouncer_may_pool_sessions(postgres: EmbeddedPostgres, s3: EmbeddedS3, data_folder: Path) -> None:
    statuses, _ = await uploads_through("session", postgres, s3, data_folder)

    assert set(statuses) == {200}


async def test_pgbouncer_that_pools_transactions_is_an_outage_that_says_so(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, data_folder: Path
) -> None:
    statuses, words = await uploads_through("transaction", postgres, s3, data_folder)

    assert 503 in statuses
    assert set(statuses) <= {200, 503}
    assert any("session pooling is needed" in one for one in words)
