"""The log has one line when something that we depend on goes, and one when it is back."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.homeserver import FakeHomeserver
from tests.support.installation import SERVER_NAME, document_for
from tests.support.ports import free_port
from tests.support.s3_wire import S3Wire
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.timeout(300)

CONFIG = "/_matrix/client/v1/media/config"
READY = "/health/ready"


def events(server: Serving, kind: str) -> list[tuple[str, str, str]]:
    lines = [*server.logged(f"{kind}_unavailable"), *server.logged(f"{kind}_recovered")]
    return [(line["event"], line["level"], line["name"]) for line in lines]


async def test_a_store_that_goes_and_comes_is_told_once_each(
    postgres: Any, s3: Any, s3_wire: S3Wire, tmp_path: Path
) -> None:
    store = {"endpoint_url": s3_wire.endpoint_url}
    document = document_for(postgres, s3, store=store, log={"format": "json"})
    async with serving(document, tmp_path) as server:
        await s3_wire.stop()
        await server.logs("store_unavailable")
        for _ in range(2):
            assert await server.status(READY) == 503
        await s3_wire.start()
        (back,) = await server.logs("store_recovered")
        assert await server.status(READY) == 200

        assert events(server, "store") == [
            ("store_unavailable", "error", "main"),
            ("store_recovered", "warning", "main"),
        ]
        assert back["outage_ms"] > 0


async def test_a_homeserver_that_goes_and_comes_is_told_once_each(
    postgres: Any, s3: Any, homeserver: FakeHomeserver, tmp_path: Path
) -> None:
    document = document_for(postgres, s3, log={"format": "json"})
    working = homeserver.url
    document["homeservers"][0]["client_api_url"] = f"http://127.0.0.1:{free_port()}"
    async with serving(document, tmp_path) as server:
        for number in range(3):
            assert await server.status(CONFIG, token=f"a-users-{number}") == 502
        document["homeservers"][0]["client_api_url"] = working
        server.reload(document)
        await server.logs("config_reloaded")
        for number in range(3):
            assert await server.status(CONFIG, token=f"a-users-{number}") in {200, 401}

        assert events(server, "homeserver") == [
            ("homeserver_unavailable", "error", SERVER_NAME),
            ("homeserver_recovered", "warning", SERVER_NAME),
        ]
