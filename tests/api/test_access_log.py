"""The access log: one line a request, which finds it again elsewhere, and never a secret."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDictProxy

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.support.installation import SERVER_NAME, TOKEN, document_for
from tests.support.serving import Serving, serving

NAME = "very-private-name.txt"
BRIDGE = f"@bridge:{SERVER_NAME}"


@pytest.fixture
async def server(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> AsyncIterator[Serving]:
    document = document_for(postgres, s3, log={"format": "json", "access": True})
    async with serving(document, tmp_path) as running:
        yield running


async def ask(server: Serving, method: str, path: str, **sent: Any) -> tuple[int, CIMultiDictProxy[str], bytes]:
    headers = {**server.headers, **sent.pop("headers", {})}
    async with server.session.request(method, f"{server.url}{path}", headers=headers, **sent) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_the_lines_of_an_upload_and_its_download_name_user_media_and_object(server: Serving) -> None:
    data = encoded(corners(64, 64), "PNG")
    _, up, _ = await ask(server, "POST", f"/_matrix/media/v3/upload?filename={NAME}", data=data)
    (stored,) = await server.logs("request")
    media_id = stored["mxc"].rpartition("/")[2]
    _, down, _ = await ask(server, "GET", f"/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}/{NAME}")
    lines = await server.logs("request", 2)

    assert (up["X-Request-Id"], down["X-Request-Id"]) == (lines[0]["request_id"], lines[1]["request_id"])
    assert lines[0]["request_id"] != lines[1]["request_id"]
    for line in lines:
        assert (line["user_id"], line["homeserver"], line["mxc"]) == (
            BRIDGE,
            SERVER_NAME,
            f"mxc://{SERVER_NAME}/{media_id}",
        )
        assert (line["status"], line["client"], line["level"]) == (200, "127.0.0.1", "info")
        assert line["object_key"].startswith("tests/")
        assert 0 < line["database_ms"] <= line["ms"] * 3
        assert 0 < line["s3_ms"] <= line["ms"] * 3
        assert 0 < line["first_byte_ms"] <= line["ms"]
    assert lines[0]["object_key"] == lines[1]["object_key"]
    assert lines[0]["bytes_in"] == len(data)
    assert lines[1]["bytes_out"] >= len(data)
    assert lines[1]["route"].endswith("/download/{server_name}/{media_id}/{file_name}")


async def test_no_token_file_name_or_query_is_in_the_log(server: Serving) -> None:
    await ask(server, "POST", f"/_matrix/media/v3/upload?filename={NAME}&secret=hidden", data=b"x")
    await ask(server, "GET", f"/_matrix/client/v1/media/download/{SERVER_NAME}/nothing/{NAME}?access_token=hidden")
    await server.logs("request", 2)

    told = server.log_file.read_text()
    for secret in (TOKEN, NAME, "hidden"):
        assert secret not in told


async def test_a_refusal_says_its_errcode(server: Serving) -> None:
    await ask(server, "GET", f"/_matrix/client/v1/media/download/{SERVER_NAME}/nothing")
    (line,) = await server.logs("request")

    assert (line["status"], line["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_trusted_proxys_request_id_is_kept_and_nonsense_is_not(server: Serving) -> None:
    _, kept, _ = await ask(server, "GET", "/_matrix/client/v1/media/config", headers={"X-Request-Id": "nginx-4f.2"})
    _, long, _ = await ask(server, "GET", "/_matrix/client/v1/media/config", headers={"X-Request-Id": "x" * 129})
    _, odd, _ = await ask(server, "GET", "/_matrix/client/v1/media/config", headers={"X-Request-Id": "a b\tc"})

    assert kept["X-Request-Id"] == "nginx-4f.2"
    for made in (long["X-Request-Id"], odd["X-Request-Id"]):
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made)
    assert (await server.logs("request", 3))[0]["request_id"] == "nginx-4f.2"


async def test_an_unknown_clients_request_id_is_not_believed(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    document = document_for(postgres, s3)
    document["listen"] = {**document.get("listen", {}), "trusted_proxies": ["192.0.2.1/32"]}
    async with serving(document, tmp_path) as server:
        _, answer, _ = await ask(server, "GET", "/health/live", headers={"X-Request-Id": "forged"})

    assert answer["X-Request-Id"] != "forged"


async def test_addresses_can_be_left_out_and_so_can_all_lines(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    document = document_for(postgres, s3, log={"format": "json", "access": True, "client_address": False})
    async with serving(document, tmp_path) as server:
        await ask(server, "GET", "/_matrix/client/v1/media/config")
        (line,) = await server.logs("request")
        assert "client" not in line

        server.reload({**document, "log": {"format": "json", "access": False}})
        await server.logs("config_reloaded")
        await ask(server, "GET", "/_matrix/client/v1/media/config")
        assert len(server.logged("request")) == 1


async def test_what_is_logged_on_behalf_of_a_request_names_it(server: Serving) -> None:
    media_id = await server.upload(b"%PDF-1.4 not a picture")
    path = f"/_matrix/client/v1/media/thumbnail/{SERVER_NAME}/{media_id}?width=32&height=32"
    _, answer, _ = await ask(server, "GET", path)
    (failed,) = await server.logs("thumbnail_failed")

    assert failed["request_id"] == answer["X-Request-Id"]
