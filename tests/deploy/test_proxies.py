"""Through the reverse proxies, with the configuration in deploy/."""

import asyncio
import hashlib
import io
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.fronting import EverythingElse, Front, Relay, everything_else, fronted
from tests.deploy.http2 import begin_upload
from tests.pictures.drawn import jpeg
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    SERVER_NAME,
    TOKEN,
    Installation,
    installed,
    settings_for,
)
from tests.support.raw import RawAnswer, RawConnection

MB = 1_000_000
UPLOAD = "/_matrix/media/v3/upload"


@dataclass(frozen=True)
class Deployed:
    """A proxy before a mediarepo and a homeserver; `client` speaks to the proxy only."""

    front: Front
    behind: Installation
    client: Installation
    homeserver: EverythingElse


@pytest.fixture(scope="module", params=["nginx", "caddy"])
async def deployed(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Deployed]:
    settings = settings_for(postgres, s3, uploads={"max_bytes": 30 * MB})
    folder = tmp_path_factory.mktemp("proxy")
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(installed(settings))
        homeserver = await stack.enter_async_context(everything_else())
        front = await stack.enter_async_context(fronted(request.param, folder, behind.url, homeserver.url))
        yield Deployed(front, behind, replace(behind, url=front.url), homeserver)


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def endless(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 50_000):
        yield bytes(50_000)


async def test_a_small_upload_comes_back_the_same(deployed: Deployed) -> None:
    data = secrets.token_bytes(1000)

    media_id = await deployed.client.upload(data, content_type="text/plain", query="?filename=a%20%26%20b.txt")
    answer = await deployed.client.get(deployed.client.download_path(media_id))

    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["Content-Disposition"] == "inline; filename=\"a & b.txt\"; filename*=utf-8''a%20&%20b.txt"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers.getall("Content-Security-Policy")[0].startswith("sandbox")


async def test_a_large_chunked_upload_comes_back_the_same(deployed: Deployed) -> None:
    data = secrets.token_bytes(20 * MB)

    media_id = await deployed.client.upload(pieces(data))
    answer = await deployed.client.get(deployed.client.download_path(media_id))

    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()
    assert answer.headers["Content-Length"] == str(len(data))


async def test_head_has_the_length_and_no_body(deployed: Deployed) -> None:
    media_id = await deployed.client.upload(bytes(777))

    answer = await deployed.client.request("HEAD", deployed.client.download_path(media_id))

    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "777")


async def test_ranges_and_conditions_pass_through(deployed: Deployed) -> None:
    data = secrets.token_bytes(100_000)
    path = deployed.client.download_path(await deployed.client.upload(data))

    part = await deployed.client.get(path, headers={"Range": "bytes=70000-70099"})
    again = await deployed.client.get(path, headers={"If-None-Match": part.headers["ETag"]})
    past_the_end = await deployed.client.get(path, headers={"Range": "bytes=200000-"})

    assert (part.status, part.body) == (206, data[70000:70100])
    assert part.headers["Content-Range"] == "bytes 70000-70099/100000"
    assert (again.status, again.body) == (304, b"")
    assert past_the_end.status == 416


async def test_a_thumbnail_comes_through(deployed: Deployed) -> None:
    media_id = await deployed.client.upload(jpeg(640, 480), content_type="image/jpeg")

    answer = await deployed.client.get(deployed.client.thumbnail_path(media_id, 96, 96))

    assert answer.status == 200
    with Image.open(io.BytesIO(answer.body)) as picture:
        assert picture.size == (96, 96)


@pytest.mark.parametrize(
    "path", ["/_matrix/media/unknown", "/_matrix/federation/v1/media/x", "/_matrix/client/v1/media/"]
)
async def test_unknown_media_paths_are_refused_by_mediarepo(deployed: Deployed, path: str) -> None:
    before = len(deployed.homeserver.targets)

    answer = await deployed.client.get(path)

    assert (answer.status, answer.json["errcode"]) == (404, "M_UNRECOGNIZED")
    assert len(deployed.homeserver.targets) == before


async def test_preflights_are_answered_by_mediarepo(deployed: Deployed) -> None:
    answer = await deployed.client.request("OPTIONS", UPLOAD, token=None)

    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("attempt", range(5))
async def test_a_bad_token_is_refused_while_the_body_is_still_being_sent(deployed: Deployed, attempt: int) -> None:
    body: Any = io.BytesIO(bytes(25 * MB)) if attempt % 2 else endless(25 * MB)

    answer = await deployed.client.request("POST", UPLOAD, token="nobody's", data=body)

    assert (answer.status, answer.json["errcode"]) == (401, "M_UNKNOWN_TOKEN")


async def refused_midway(front: Front, token: str, declared_bytes: int) -> RawAnswer:
    """Declare a body and send it in drips, but not to its end, until there is an answer."""
    head = (
        f"POST {UPLOAD} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {declared_bytes}\r\n\r\n"
    )
    async with RawConnection.open(front.url) as connection:
        await connection.send(head.encode())
        answering, sent = asyncio.create_task(connection.answer()), 0
        while not answering.done():
            await connection.send(bytes(1000))
            sent += 1000
            await asyncio.wait([answering], timeout=0.01)
        assert sent < declared_bytes
        return await answering


async def test_a_bad_token_is_refused_before_the_body_was_sent(deployed: Deployed) -> None:
    answer = await refused_midway(deployed.front, "nobody's", 25 * MB)

    assert (answer.status, answer.json["errcode"]) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize("declared", [True, False])
async def test_an_upload_over_the_limit_is_refused_in_matrix_words(deployed: Deployed, declared: bool) -> None:
    body: Any = io.BytesIO(bytes(31 * MB)) if declared else endless(40 * MB)

    answer = await deployed.client.request("POST", UPLOAD, data=body)

    assert (answer.status, answer.json["errcode"]) == (413, "M_TOO_LARGE")


async def test_no_limit_of_the_proxys_own_comes_before_the_one_of_mediarepo(deployed: Deployed) -> None:
    answer = await refused_midway(deployed.front, TOKEN, 1000 * MB)

    assert (answer.status, answer.json["errcode"]) == (413, "M_TOO_LARGE")
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("name", ["a%2Fb", "..%2Fb", "..%2F..%2F..%2Fclient%2Fv3%2Fx"])
async def test_a_slash_in_a_file_name_arrives_encoded_and_is_refused(deployed: Deployed, name: str) -> None:
    media_id = await deployed.client.upload(b"data")
    before = len(deployed.homeserver.targets)

    answer = await deployed.client.get(f"{deployed.client.download_path(media_id)}/{name}")

    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")
    assert len(deployed.homeserver.targets) == before


async def test_other_escapes_in_a_file_name_arrive_as_sent(deployed: Deployed) -> None:
    media_id = await deployed.client.upload(b"data")

    answer = await deployed.client.get(f"{deployed.client.download_path(media_id)}/100%25%3F%20%E2%82%AC.txt")

    assert answer.status == 200
    assert "100%25%3F%20%E2%82%AC.txt" in answer.headers["Content-Disposition"]


async def test_the_host_says_which_homeserver_is_meant(deployed: Deployed) -> None:
    uris = [
        (await deployed.client.request("POST", UPLOAD, token=token, host=host, data=b"data")).json["content_uri"]
        for host, token in ((SERVER_NAME, TOKEN), (f"{OTHER_SERVER_NAME}:8448", OTHER_TOKEN))
    ]
    mixed_up = await deployed.client.request("POST", UPLOAD, token=TOKEN, host=OTHER_SERVER_NAME, data=b"data")

    assert [uri.split("/")[2] for uri in uris] == [SERVER_NAME, OTHER_SERVER_NAME]
    assert mixed_up.status == 401


async def test_a_client_cannot_choose_another_homeserver_than_its_host(deployed: Deployed) -> None:
    answer = await deployed.client.request(
        "POST", UPLOAD, data=b"data", headers={"X-Forwarded-Host": OTHER_SERVER_NAME}
    )

    assert answer.status == 200
    assert answer.json["content_uri"].startswith(f"mxc://{SERVER_NAME}/")


@pytest.mark.parametrize(
    "path", ["/_matrix/client/v3/x", "/_matrix/client/v1/mediaeval", "/_matrix/federation/v1/send/1", "/"]
)
async def test_all_other_paths_go_to_the_homeserver(deployed: Deployed, path: str) -> None:
    answer = await deployed.client.get(path)

    assert answer.json == {"homeserver": True}
    assert deployed.homeserver.targets[-1] == path
    assert deployed.homeserver.hosts[-1] == SERVER_NAME


async def by_http2(deployed: Deployed, path: str, *arguments: str) -> tuple[int, bytes]:
    """Ask over HTTP/2, as browsers do; gives status and body."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed here")
    headers = ["-H", f"Host: {SERVER_NAME}", "-H", f"Authorization: Bearer {TOKEN}"]
    options = ["-q", "-sS", "--noproxy", "*", "--max-time", "120", "--http2-prior-knowledge"]
    options += ["-w", "\n%{http_version} %{http_code}"]
    process = await asyncio.create_subprocess_exec(
        curl, *options, *headers, *arguments, deployed.front.http2_url + path, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    body, _, outcome = output.rpartition(b"\n")
    version, status = outcome.split()
    assert (process.returncode, version) == (0, b"2")
    return int(status), body


async def test_uploads_and_downloads_work_over_http2(deployed: Deployed, tmp_path: Path) -> None:
    data, file = secrets.token_bytes(20 * MB), tmp_path / "file"
    file.write_bytes(data)

    uploaded, answer = await by_http2(deployed, UPLOAD, "--data-binary", f"@{file}")
    media_id = json.loads(answer)["content_uri"].rpartition("/")[2]
    downloaded, body = await by_http2(deployed, deployed.client.download_path(media_id))

    assert (uploaded, downloaded) == (200, 200)
    assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("token", "size", "errcode"), [("nobody's", 25 * MB, "M_UNKNOWN_TOKEN"), (TOKEN, 1000 * MB, "M_TOO_LARGE")]
)
async def test_refusals_arrive_over_http2_while_the_body_is_being_sent(
    deployed: Deployed, token: str, size: int, errcode: str
) -> None:
    headers = {"host": SERVER_NAME, "authorization": f"Bearer {token}"}

    answer = await begin_upload(deployed.front.http2_url, UPLOAD, headers, size)

    assert json.loads(answer)["errcode"] == errcode


async def test_an_upload_is_passed_on_before_it_is_complete(deployed: Deployed, tmp_path: Path) -> None:
    marker = b"the first bytes of an upload"
    spooled: list[str] = []

    async with (
        Relay(deployed.behind.url, marker) as relay,
        fronted(deployed.front.name, tmp_path, relay.url, deployed.homeserver.url) as front,
    ):

        async def body() -> AsyncIterator[bytes]:
            yield marker + bytes(3 * MB)
            await relay.saw_marker.wait()
            spooled.extend(front.spooled())
            yield b"the last bytes"

        client = replace(deployed.behind, url=front.url)
        async with asyncio.timeout(60):
            media_id = await client.upload(body())
        answer = await client.get(client.download_path(media_id))

    assert answer.body == marker + bytes(3 * MB) + b"the last bytes"
    assert spooled == []
