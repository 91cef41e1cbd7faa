"""The schema is dropped, raised and put back under a running server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mediarepo.config.settings import Settings
from mediarepo.db.migrations import upgrade
from tests.support.installation import document_for
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.timeout(300)

READY = "/health/ready"
INFO = "/_synapse/admin/v1/media/media.example/nothing"


@pytest.fixture
def document(postgres: Any, s3: Any) -> dict[str, Any]:
    return document_for(postgres, s3, log={"format": "json"}, admin={"token": "operator"})


@asynccontextmanager
async def beside(document: dict[str, Any]) -> AsyncIterator[Any]:
    schema = document["database"]["schema"]
    connection = await asyncpg.connect(document["database"]["url"], server_settings={"search_path": schema})
    try:
        yield connection
    finally:
        await connection.close()


async def problems(server: Serving) -> dict[str, str]:
    async with server.session.get(f"{server.url}{READY}") as answer:
        found: dict[str, str] = (await answer.json()).get("problems", {})
        return found


async def test_a_schema_that_is_dropped_stops_serving_until_it_is_there_again(
    document: dict[str, Any], tmp_path: Path
) -> None:
    async with serving(document, tmp_path) as server, beside(document) as connection:
        media_id = await server.upload(b"content")
        assert await server.download(media_id) == b"content"

        await connection.execute(f'DROP SCHEMA "{document["database"]["schema"]}" CASCADE')
        assert await server.status(INFO, token="operator") == 503
        assert "mediarepo migrate" in (await problems(server))["database"]
        with pytest.raises(AssertionError, match="mediarepo migrate"):
            await server.upload(b"more")

        await upgrade(Settings.model_validate(document).database)
        await server.answers(READY, 200)

        assert await server.download(await server.upload(b"new")) == b"new"
        assert await server.status(INFO, token="operator") == 404
        assert [len(server.logged(event)) for event in ("schema_incompatible", "schema_compatible")] == [1, 1]
        assert server.logged("schema_incompatible")[0]["level"] == "error"
        assert not server.logged("unexpected_error")


async def test_a_schema_for_newer_code_stops_serving_without_a_request_that_meets_it(
    document: dict[str, Any], tmp_path: Path
) -> None:
    async with serving(document, tmp_path) as server, beside(document) as connection:
        media_id = await server.upload(b"content")
        (before,) = await connection.fetch("SELECT version, min_compatible FROM schema_meta")

        await connection.execute("UPDATE schema_meta SET version = 1000, min_compatible = 1000")
        (line,) = await server.logs("schema_incompatible")
        assert "newer mediarepo" in line["reason"]
        assert await server.status(f"/_matrix/client/v1/media/download/media.example/{media_id}") == 503
        assert await server.status(READY) == 503

        await connection.execute("UPDATE schema_meta SET version = $1, min_compatible = $2", *before)
        await server.logs("schema_compatible")
        assert await server.download(media_id) == b"content"
        assert await server.status(READY) == 200


async def test_a_newer_schema_that_older_code_may_use_changes_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    async with serving(document, tmp_path) as server, beside(document) as connection:
        await connection.execute("UPDATE schema_meta SET version = version + 1")

        assert await server.status(READY) == 200
        assert await server.download(await server.upload(b"content")) == b"content"
        assert not server.logged("schema_incompatible")
