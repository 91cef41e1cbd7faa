import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    SERVER_NAME,
    TOKEN,
    Answer,
    Installation,
    document_for,
    homeserver,
    installed,
    settings_for,
)
from tests.support.remote_server import BOUNDARY, RemoteServer, mixed, refusing, remote_server, serving_file

MIXED = {"Content-Type": f"multipart/mixed; boundary={BOUNDARY}"}
SMALL_PARTS = 5 * 1024 * 1024
PICTURE = encoded(corners(400, 300), "PNG")


@pytest.fixture
async def origin(certificate: Path) -> AsyncIterator[RemoteServer]:
    async with remote_server(certificate) as server:
        yield server


@pytest.fixture(scope="module")
async def pair(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path
) -> AsyncIterator[tuple[Installation, Installation]]:
    """Two servers over one database and one bucket, each with connections of its own."""
    settings = settings_for(postgres, s3, **federating(certificate, signing_key_file))
    async with installed(settings) as one, installed(settings, migrate=False) as two:
        yield one, two


def federating(certificate: Path, signing_key_file: Path, **overrides: Any) -> dict[str, Any]:
    return {
        "homeservers": [
            homeserver(SERVER_NAME, TOKEN, signing_key_file=str(signing_key_file)),
            homeserver(OTHER_SERVER_NAME, OTHER_TOKEN),
        ],
        "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
        "uploads": {"part_bytes": SMALL_PARTS},
        "remote_media": {"max_bytes": 30_000_000, "backoff_ms": 0, "lease_ms": 1000, **overrides},
    }


@pytest.fixture(scope="module")
def near(pair: tuple[Installation, Installation]) -> Installation:
    return pair[0]


def path_of(origin: RemoteServer, media_id: str, query: str = "") -> str:
    return f"/_matrix/client/v1/media/download/{origin.server_name}/{media_id}{query}"


async def stored(installation: Installation, origin: RemoteServer) -> None:
    """Wait until the media of a server are kept: a client may have all bytes a moment before."""
    while not await installation.value("SELECT count(*) FROM media WHERE server_name = $1", origin.server_name):
        await asyncio.sleep(0.01)


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


SAME_HEADERS = {"Date", "Transfer-Encoding", "Content-Length", "Connection", "X-Request-ID"}


def told(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in SAME_HEADERS}


@pytest.mark.parametrize("size_bytes", [0, 1, 100_000, SMALL_PARTS, SMALL_PARTS + 1, 12_000_000])
@pytest.mark.parametrize("closing", [b"--\r\n", b"--", b""])
async def test_media_of_another_server_are_fetched_once_and_the_same_ever_after(
    near: Installation, origin: RemoteServer, size_bytes: int, closing: bytes
) -> None:
    data = secrets.token_bytes(size_bytes)
    origin.federation["abc"] = serving_file(data, closing=closing)

    first = await near.get(path_of(origin, "abc"))
    await stored(near, origin)
    later = await near.get(path_of(origin, "abc"))

    assert (first.status, first.body == data, later.body == data) == (200, True, True)
    assert told(first) == told(later)
    assert later.headers["Content-Length"] == str(size_bytes)
    assert first.headers["Content-Type"] == "image/png"
    assert first.headers["Content-Disposition"] == "inline; filename=a.png"
    assert origin.asked() == ["/_matrix/federation/v1/media/download/abc?timeout_ms=20000"]
    row = (await near.rows("SELECT * FROM media WHERE server_name = $1", origin.server_name))[0]
    assert (row["remote"], row["authenticated"], row["uploaded_by"]) == (True, True, None)


async def test_requests_are_signed_by_the_homeserver_whose_user_asks(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = serving_file(b"signed")

    await near.get(path_of(origin, "abc"))

    header = origin.requests[0].headers["Authorization"]
    assert header.startswith(f'X-Matrix origin="{SERVER_NAME}",destination="{origin.server_name}",key="ed25519:')


async def test_a_homeserver_without_a_key_cannot_fetch_and_says_so(near: Installation, origin: RemoteServer) -> None:
    answer = await near.get(path_of(origin, "abc"), host=OTHER_SERVER_NAME, token=OTHER_TOKEN)

    assert refusal(answer) == (502, "M_UNKNOWN")
    assert "no key" in answer.json["error"]
    assert origin.asked() == []


async def test_what_another_homeserver_here_fetched_needs_no_key(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = serving_file(b"fetched for one")
    await near.get(path_of(origin, "abc"))

    answer = await near.get(path_of(origin, "abc"), host=OTHER_SERVER_NAME, token=OTHER_TOKEN)

    assert answer.body == b"fetched for one"


@pytest.mark.parametrize("path", ["client/v1/media/download", "media/v3/download", "media/r0/thumbnail"])
@pytest.mark.parametrize("token", [None, ""])
async def test_strangers_cause_no_fetch_and_see_nothing(
    near: Installation, origin: RemoteServer, path: str, token: str | None
) -> None:
    origin.federation["abc"] = serving_file(PICTURE)
    query = "?width=4&height=4" if "thumbnail" in path else ""
    if token is None or "client" not in path:
        answer = await near.get(f"/_matrix/{path}/{origin.server_name}/abc{query}", token=token)
        assert answer.status == (401 if "client" in path else 404)

    assert origin.asked() == []
    assert await near.value("SELECT count(*) FROM media WHERE server_name = $1", origin.server_name) == 0


async def test_what_was_fetched_is_not_on_the_frozen_paths(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = serving_file(b"fetched")
    await near.get(path_of(origin, "abc"))
    await stored(near, origin)

    for token in (None, ""):
        answer = await near.get(f"/_matrix/media/v3/download/{origin.server_name}/abc", token=token)
        assert refusal(answer) == (404, "M_NOT_FOUND")


async def test_allow_remote_false_asks_nobody(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = serving_file(b"x")

    assert refusal(await near.get(path_of(origin, "abc", "?allow_remote=false"))) == (404, "M_NOT_FOUND")
    assert origin.asked() == []


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (refusing(404, "M_NOT_FOUND"), (404, "M_NOT_FOUND")),
        (refusing(401, "M_UNAUTHORIZED"), (502, "M_UNKNOWN")),
        (refusing(403, "M_FORBIDDEN"), (502, "M_UNKNOWN")),
        (refusing(429, "M_LIMIT_EXCEEDED"), (502, "M_UNKNOWN")),
        (refusing(500, "M_UNKNOWN"), (502, "M_UNKNOWN")),
        (refusing(502, "M_TOO_LARGE"), (502, "M_TOO_LARGE")),
        (refusing(413, "M_TOO_LARGE"), (502, "M_TOO_LARGE")),
        (refusing(200, None, "no multipart"), (502, "M_UNKNOWN")),
    ],
)
async def test_refusals_of_the_other_server_are_told_in_our_words_and_remembered(
    near: Installation, origin: RemoteServer, handler: Any, expected: tuple[int, str]
) -> None:
    origin.federation["abc"] = handler

    assert refusal(await near.get(path_of(origin, "abc"))) == expected
    assert refusal(await near.get(path_of(origin, "abc"))) == expected
    assert len(origin.asked()) == 1
    assert await near.value("SELECT count(*) FROM media WHERE server_name = $1", origin.server_name) == 0


async def test_what_is_not_uploaded_yet_is_waited_for(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = refusing(504, "M_NOT_YET_UPLOADED")
    impatient = await near.get(path_of(origin, "abc", "?timeout_ms=0"))
    patient = asyncio.create_task(near.get(path_of(origin, "abc", "?timeout_ms=30000")))
    while len(origin.asked()) < 2:
        await asyncio.sleep(0.01)
    origin.federation["abc"] = serving_file(b"here it is")

    assert refusal(impatient) == (504, "M_NOT_YET_UPLOADED")
    assert (await patient).body == b"here it is"


@pytest.mark.parametrize(
    "unknown",
    [
        refusing(404, "M_UNRECOGNIZED"),
        refusing(405, "M_UNRECOGNIZED"),
        refusing(404, None),
        refusing(404, None, ""),
        refusing(400, None, "complement: Invalid Origin"),
    ],
)
@pytest.mark.parametrize("versions", [1, 2])
async def test_servers_that_do_not_know_the_endpoint_are_asked_as_before(
    near: Installation, origin: RemoteServer, unknown: Any, versions: int
) -> None:
    asked = 0

    async def plain(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked < versions:
            return await refusing(404, "M_UNRECOGNIZED")(request)
        headers = {"Content-Type": "text/plain", "Content-Disposition": 'inline; filename="b c.txt"'}
        return web.Response(body=b"Hello from the other side", headers=headers)

    origin.federation["abc"] = unknown
    origin.legacy["abc"] = plain

    answer = await near.get(path_of(origin, "abc"))

    assert (answer.body, answer.headers["Content-Type"]) == (b"Hello from the other side", "text/plain")
    assert answer.headers["Content-Disposition"] == "inline; filename=\"b c.txt\"; filename*=utf-8''b%20c.txt"
    last = origin.asked()[-1]
    assert last.startswith(f"/_matrix/media/{'v3' if versions == 1 else 'r0'}/download/{origin.server_name}/abc?")
    assert "allow_remote=false" in last
    assert "Authorization" in origin.requests[-1].headers


async def test_not_found_is_no_reason_to_ask_as_before(near: Installation, origin: RemoteServer) -> None:
    origin.legacy["abc"] = serving_file(b"never")

    assert (await near.get(path_of(origin, "abc"))).status == 404
    assert len(origin.asked()) == 1


@pytest.mark.parametrize("status", [200, 307])
async def test_the_only_connection_is_given_back_before_another_place_is_asked(
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    certificate: Path,
    signing_key_file: Path,
    origin: RemoteServer,
    status: int,
) -> None:
    target = f"https://{origin.server_name}/bucket/object"

    async def points(_request: web.Request) -> web.StreamResponse:
        body = mixed(b"").replace(b"Content-Type: image/png", f"Location: {target}".encode())
        return web.Response(body=body, headers=MIXED)

    async def redirects(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": target})

    async def gives(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"there", headers={"Content-Type": "video/mp4"})

    origin.federation["abc"] = points if status == 200 else refusing(404, "M_UNRECOGNIZED")
    origin.legacy["abc"], origin.elsewhere = redirects, gives
    sections = federating(certificate, signing_key_file)
    sections["outbound"]["max_connections"] = 1
    async with installed(settings_for(postgres, s3, **sections)) as narrow:
        answer = await narrow.get(path_of(origin, "abc"))

    assert (answer.status, answer.body) == (200, b"there")


@pytest.mark.parametrize("relative", [False, True])
async def test_a_location_is_followed_without_our_signature(
    near: Installation, origin: RemoteServer, *, relative: bool
) -> None:
    data = secrets.token_bytes(6_000_000)
    target = "/bucket/object" if relative else f"https://{origin.server_name}/bucket/object"

    async def points(_request: web.Request) -> web.Response:
        body = mixed(b"").replace(b"Content-Type: image/png\r\nContent-Disposition: inline; filename=a.png", b"LOC")
        return web.Response(body=body.replace(b"LOC", f"Location: {target}".encode()), headers=MIXED)

    async def stored(_request: web.Request) -> web.Response:
        return web.Response(body=data, headers={"Content-Type": "video/mp4"})

    origin.federation["abc"] = points
    origin.elsewhere = stored

    answer = await near.get(path_of(origin, "abc"))

    assert (answer.status, answer.body == data, answer.headers["Content-Type"]) == (200, True, "video/mp4")
    assert origin.asked()[-1] == "/bucket/object"
    assert "Authorization" not in origin.requests[-1].headers


@pytest.mark.parametrize("by_way_of_https", [False, True])
async def test_a_location_without_tls_is_followed_without_our_signature(
    near: Installation, origin: RemoteServer, *, by_way_of_https: bool
) -> None:
    data = secrets.token_bytes(100_000)
    asked: list[web.BaseRequest] = []

    async def give(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        return web.Response(body=data, headers={"Content-Type": "video/mp4"})

    runner = web.ServerRunner(web.Server(give))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        target = f"http://127.0.0.1:{runner.addresses[0][1]}/bucket/object"

        async def points(_request: web.Request) -> web.Response:
            location = f"https://{origin.server_name}/bucket/first" if by_way_of_https else target
            body = mixed(b"").replace(b"Content-Type: image/png", f"Location: {location}".encode())
            return web.Response(body=body, headers=MIXED)

        async def redirects(_request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": target})

        origin.federation["abc"], origin.elsewhere = points, redirects
        answer = await near.get(path_of(origin, "abc"))
    finally:
        await runner.cleanup()

    assert (answer.status, answer.body == data, answer.headers["Content-Type"]) == (200, True, "video/mp4")
    (request,) = asked
    assert not {"Authorization", "Cookie", "Referer"} & set(request.headers)


@pytest.mark.parametrize(
    ("outer", "inner", "name"),
    [
        ("inline; filename=outer.png", None, "outer.png"),
        ("inline; filename=outer.png", "inline; filename=inner.png", "inner.png"),
        ("inline; filename=outer.png", "inline", "outer.png"),
        ("inline; filename*=utf-8''%E2%98%83.png", None, "☃.png"),
        ('attachment; filename="../x"', None, "../x"),
        ("inline", None, None),
        (None, "inline; filename=inner.png", "inner.png"),
    ],
)
async def test_the_name_is_taken_from_the_part_or_else_from_the_answer(
    near: Installation, origin: RemoteServer, outer: str | None, inner: str | None, name: str | None
) -> None:
    async def gives(_request: web.Request) -> web.Response:
        headers = MIXED if outer is None else {**MIXED, "Content-Disposition": outer}
        return web.Response(body=mixed(b"named", disposition=inner), headers=headers)

    origin.federation["abc"] = gives

    answer = await near.get(path_of(origin, "abc"))
    await stored(near, origin)

    assert answer.body == b"named"
    kept = await near.value("SELECT upload_name FROM media WHERE server_name = $1", origin.server_name)
    assert kept == name


async def test_a_body_with_bare_line_feeds_and_one_without_its_last_boundary_are_read(
    near: Installation, origin: RemoteServer
) -> None:
    bodies = {
        "lf": mixed(b"PNGDATA", boundary="X1").replace(b"\r\n", b"\n"),
        "open": mixed(b"PNGDATA", boundary="X1").partition(b"\r\n--X1\r\nContent-Type: image")[0]
        + b"\r\n--X1\r\nContent-Type: image/png\r\n\r\nPNGDATA",
    }
    for media_id, body in bodies.items():

        async def gives(_request: web.Request, body: bytes = body) -> web.Response:
            return web.Response(body=body, headers={"Content-Type": "multipart/mixed; boundary=X1"})

        origin.federation[media_id] = gives
        answer = await near.get(path_of(origin, media_id))
        assert (answer.status, answer.body) == (200, b"PNGDATA")


async def test_a_chunked_body_without_its_last_boundary_is_not_taken_for_whole(
    near: Installation, origin: RemoteServer
) -> None:
    async def gives(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=MIXED)
        await response.prepare(request)
        await response.write(mixed(b"PNGDATA").removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode()))
        await response.write_eof()
        return response

    origin.federation["abc"] = gives

    with suppress(aiohttp.ClientPayloadError):
        assert refusal(await near.get(path_of(origin, "abc"))) == (502, "M_UNKNOWN")
    assert refusal(await near.get(path_of(origin, "abc"))) == (502, "M_UNKNOWN")


@pytest.mark.parametrize(
    "target",
    [
        "https://10.0.0.1/secret",
        "http://10.0.0.1/secret",
        "http://127.0.0.1/x",
        "https://[::ffff:10.0.0.1]/",
        "file:///etc/passwd",
        "",
        "//[::1",
        "https://exa\tmple.org/",
        "https://user@127.0.0.1/",
    ],
)
async def test_a_location_on_forbidden_ground_is_not_followed(
    near: Installation, origin: RemoteServer, target: str
) -> None:
    async def points(_request: web.Request) -> web.Response:
        head = mixed(b"").replace(b"Content-Type: image/png", f"Location: {target}".encode())
        return web.Response(body=head, headers=MIXED)

    origin.federation["abc"] = points

    assert refusal(await near.get(path_of(origin, "abc"))) == (502, "M_UNKNOWN")


@pytest.mark.parametrize("size_bytes", [30_000_001, 31_000_000])
@pytest.mark.parametrize("declared", [True, False])
async def test_more_than_the_limit_is_502_too_large_and_nothing_stays(
    near: Installation, origin: RemoteServer, size_bytes: int, *, declared: bool
) -> None:
    before = await near.object_keys()

    async def large(request: web.Request) -> web.StreamResponse:
        body = mixed(bytes(size_bytes))
        if declared:
            return web.Response(body=body, headers=MIXED)
        response = web.StreamResponse(headers=MIXED)
        await response.prepare(request)
        for at in range(0, len(body), 1_000_000):
            await response.write(body[at : at + 1_000_000])
        return response

    origin.federation["abc"] = large
    answer = await near.get(path_of(origin, "abc", "?timeout_ms=0"), headers={"Range": "bytes=0-9"})

    assert refusal(answer) == (502, "M_TOO_LARGE")
    await near.repository.sweeps.outbox.drain()
    assert await near.object_keys() <= before


@pytest.mark.parametrize("size_bytes", [1000, 12_000_000])
@pytest.mark.parametrize("declared", [True, False])
async def test_an_origin_that_breaks_off_breaks_us_off_and_leaves_nothing(
    near: Installation, origin: RemoteServer, size_bytes: int, *, declared: bool
) -> None:
    before = await near.object_keys()

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=MIXED)
        if declared:
            response.content_length = size_bytes * 2
        await response.prepare(request)
        await response.write(mixed(bytes(size_bytes))[:-40])
        assert request.transport is not None
        await asyncio.sleep(0.1)
        request.transport.abort()
        return response

    origin.federation["abc"] = broken
    try:
        answer = await near.get(path_of(origin, "abc"))
    except (OSError, Exception) as exc:  # noqa: BLE001 - however the client learns of it
        assert "payload" in str(exc).lower() or "disconnect" in str(exc).lower() or isinstance(exc, OSError)  # noqa: PT017 - the client has several errors for it
    else:
        assert refusal(answer) == (502, "M_UNKNOWN")

    await near.repository.sweeps.outbox.drain()
    assert await near.object_keys() == before
    assert await near.value("SELECT count(*) FROM media WHERE server_name = $1", origin.server_name) == 0


@pytest.mark.parametrize(("size_bytes", "early"), [(12_000_000, 6_000_000), (3_000_000, 900_000), (20_000, 4_000)])
@pytest.mark.parametrize("declared", ["body", "file", "nothing"])
async def test_bytes_reach_the_client_while_the_origin_still_sends(
    near: Installation, origin: RemoteServer, size_bytes: int, early: int, declared: str
) -> None:
    data, go_on = secrets.token_bytes(size_bytes), asyncio.Event()
    origin.federation["abc"] = pausing(data, early + 1_000, go_on, declared=declared)
    async with near.session.get(
        near.url + path_of(origin, "abc"), headers={"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}
    ) as response:
        beginning = await response.content.readexactly(early)
        stored = await near.value("SELECT count(*) FROM media WHERE server_name = $1", origin.server_name)
        go_on.set()
        rest = await response.content.read()

    assert (response.status, stored) == (200, 0)
    assert beginning + rest == data
    assert response.headers.get("Content-Length") == (str(size_bytes) if declared == "file" else None)


def pausing(data: bytes, after: int, go_on: asyncio.Event, *, declared: str = "body") -> Any:
    async def handler(request: web.Request) -> web.StreamResponse:
        body = mixed(data)
        if declared == "file":
            body = body.replace(b"image/png\r\n", b"image/png\r\nContent-Length: %d\r\n" % len(data))
        response = web.StreamResponse(headers=MIXED)
        if declared != "nothing":
            response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:after])
        await go_on.wait()
        await response.write(body[after:])
        return response

    return handler


async def test_a_client_that_leaves_does_not_end_the_fetch(near: Installation, origin: RemoteServer) -> None:
    data, go_on = secrets.token_bytes(12_000_000), asyncio.Event()
    origin.federation["abc"] = pausing(data, 7_000_000, go_on)
    headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}
    async with near.session.get(near.url + path_of(origin, "abc"), headers=headers) as response:
        await response.content.readexactly(1000)
        response.close()
    go_on.set()

    assert (await near.get(path_of(origin, "abc"))).body == data
    assert len(origin.asked()) == 1


async def test_a_slow_client_does_not_hold_up_the_store_and_gets_every_byte(
    near: Installation, origin: RemoteServer
) -> None:
    data = secrets.token_bytes(20_000_000)
    origin.federation["abc"] = serving_file(data)
    headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}
    async with near.session.get(near.url + path_of(origin, "abc"), headers=headers) as response:
        received = await response.content.readexactly(1000)
        await stored(near, origin)
        received += await response.content.read()

    assert received == data
    assert len(origin.asked()) == 1


async def test_many_first_requests_at_two_processes_make_one_fetch_and_one_object(
    pair: tuple[Installation, Installation], origin: RemoteServer
) -> None:
    data = secrets.token_bytes(200_000)
    origin.federation["abc"] = serving_file(data)
    before = await pair[0].object_keys()

    answers = await asyncio.gather(*(pair[number % 2].get(path_of(origin, "abc")) for number in range(200)))

    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {data}
    kinds = {tuple(sorted(told(answer).items())) for answer in answers}
    assert len(kinds) == 1, set.symmetric_difference(*map(set, kinds))
    assert len(origin.asked()) == 1
    assert len(await pair[0].object_keys() - before) == 1


async def test_many_first_requests_for_what_is_not_there_make_one_fetch(
    pair: tuple[Installation, Installation], origin: RemoteServer
) -> None:
    answers = await asyncio.gather(*(pair[number % 2].get(path_of(origin, "abc")) for number in range(50)))

    assert {refusal(answer) for answer in answers} == {(404, "M_NOT_FOUND")}
    assert len(origin.asked()) == 1


async def test_content_that_vanished_from_s3_is_fetched_again(near: Installation, origin: RemoteServer) -> None:
    data = secrets.token_bytes(1000)
    origin.federation["abc"] = serving_file(data)
    first = await near.get(path_of(origin, "abc"))
    await lose_object(near, origin)

    again = await near.get(path_of(origin, "abc"))

    assert (again.status, again.body == data) == (200, True)
    assert told(again) == told(first)
    assert len(origin.asked()) == 2


async def lose_object(near: Installation, origin: RemoteServer) -> None:
    await stored(near, origin)
    query = "SELECT object_key FROM blob JOIN media USING (blob_id) WHERE server_name = $1"
    await near.store.delete([await near.value(query, origin.server_name)])


async def test_other_bytes_after_a_loss_have_another_etag(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = serving_file(b"first")
    first = await near.get(path_of(origin, "abc"))
    await lose_object(near, origin)
    origin.federation["abc"] = serving_file(b"changed")

    changed = await near.get(path_of(origin, "abc"))

    assert changed.body == b"changed"
    assert changed.headers["ETag"] != first.headers["ETag"]


async def test_what_is_kept_stays_whatever_the_origin_says_later(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = serving_file(b"first")
    await near.get(path_of(origin, "abc"))
    origin.federation["abc"] = serving_file(b"changed")

    assert (await near.get(path_of(origin, "abc"))).body == b"first"


async def test_thumbnails_of_media_not_fetched_yet(near: Installation, origin: RemoteServer) -> None:
    origin.federation["abc"] = serving_file(PICTURE)
    path = f"/_matrix/client/v1/media/thumbnail/{origin.server_name}/abc?width=32&height=32&method=crop"

    first = await near.get(path)
    again = await near.get(path)

    assert (first.status, first.headers["Content-Type"]) == (200, "image/png")
    assert first.body == again.body
    assert len(origin.asked()) == 1


async def test_a_thumbnail_of_content_that_vanished_is_made_of_what_is_fetched_again(
    near: Installation, origin: RemoteServer
) -> None:
    origin.federation["abc"] = serving_file(encoded(corners(401, 301), "PNG"))
    await near.get(path_of(origin, "abc"))
    await lose_object(near, origin)

    path = f"/_matrix/client/v1/media/thumbnail/{origin.server_name}/abc?width=32&height=32&method=crop"
    assert (await near.get(path)).status == 200
    assert len(origin.asked()) == 2


@pytest.mark.parametrize("declared", ["body", "file", "nothing"])
async def test_content_is_held_back_only_while_a_hidden_one_could_have_its_length(
    pair: tuple[Installation, Installation], origin: RemoteServer, declared: str
) -> None:
    near, _ = pair
    data, go_on = secrets.token_bytes(400_000), asyncio.Event()
    await near.rows("DELETE FROM quarantined_hash RETURNING 1")
    hidden_bytes = {"body": 200_000, "file": len(data) + 1, "nothing": None}[declared]
    if hidden_bytes is not None:
        await near.rows(
            "INSERT INTO quarantined_hash VALUES (sha256($1::bytea), '@a:a', NULL, 0, $2) RETURNING 1",
            secrets.token_bytes(9),
            hidden_bytes,
        )
    headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {TOKEN}"}
    origin.federation["early"] = pausing(data, 300_000, go_on, declared=declared)
    async with near.session.get(near.url + path_of(origin, "early"), headers=headers) as response:
        assert await response.content.readexactly(1000) == data[:1000]
        go_on.set()
        assert data.endswith(await response.content.read())

    await near.rows(
        "INSERT INTO quarantined_hash VALUES (sha256($1::bytea), '@a:a', NULL, 0, $2) RETURNING 1", data[1:], len(data)
    )
    go_on.clear()
    origin.federation["late"] = pausing(data[::-1], 300_000, go_on, declared=declared)
    waiting = asyncio.create_task(near.get(path_of(origin, "late")))
    while "late" not in origin.asked()[-1]:
        await asyncio.sleep(0.01)
    _, still = await asyncio.wait([waiting], timeout=0.3)
    assert still, "held back while its hash is not known"
    go_on.set()
    assert (await waiting).body == data[::-1]
    await near.rows("DELETE FROM quarantined_hash RETURNING 1")


@pytest.mark.parametrize("size_bytes", [1000, 12_000_000])
async def test_hidden_content_is_404_when_fetched(near: Installation, origin: RemoteServer, size_bytes: int) -> None:
    data = secrets.token_bytes(size_bytes)
    await near.rows("INSERT INTO quarantined_hash VALUES (sha256($1::bytea), '@admin:a', NULL, 0) RETURNING 1", data)
    origin.federation["abc"] = serving_file(data)

    assert refusal(await near.get(path_of(origin, "abc"))) == (404, "M_NOT_FOUND")
    assert refusal(await near.get(path_of(origin, "abc"))) == (404, "M_NOT_FOUND")
    assert len(origin.asked()) == 1


async def test_a_hidden_servers_media_are_not_even_fetched(near: Installation, origin: RemoteServer) -> None:
    await near.rows(
        "INSERT INTO quarantined_server_name VALUES ($1, '@admin:a', NULL, 0) RETURNING 1", origin.server_name
    )
    origin.federation["abc"] = serving_file(b"x")

    assert refusal(await near.get(path_of(origin, "abc"))) == (404, "M_NOT_FOUND")
    assert origin.asked() == []


@pytest.mark.parametrize("alias", ["matrix.media.example", "media.example:8448", "MEDIA.example", "media.example:443"])
async def test_other_names_of_our_own_are_not_asked_over_the_network(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path, alias: str
) -> None:
    document = document_for(postgres, s3, **federating(certificate, signing_key_file))
    document["homeservers"][0]["hosts"] = ["matrix.media.example"]
    async with installed(settings_for(postgres, s3, **document)) as own:
        answer = await own.get(f"/_matrix/client/v1/media/download/{alias}/abc")

        assert refusal(answer) == (404, "M_NOT_FOUND")
        assert await own.value("SELECT count(*) FROM lease WHERE name NOT LIKE 'server %'") == 0
        assert await own.value("SELECT count(*) FROM remote_failure") == 0


async def test_denied_servers_are_404_even_when_kept(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path, origin: RemoteServer
) -> None:
    origin.federation["abc"] = serving_file(b"kept")
    allowing = document_for(postgres, s3, **federating(certificate, signing_key_file))
    async with installed(settings_for(postgres, s3, **allowing)) as own:
        assert (await own.get(path_of(origin, "abc"))).status == 200
        await stored(own, origin)
    allowing["remote_media"]["deny_server_names"] = ["127.0.*"]
    async with installed(settings_for(postgres, s3, **allowing), migrate=False) as own:
        assert refusal(await own.get(path_of(origin, "abc"))) == (404, "M_NOT_FOUND")
    assert len(origin.asked()) == 1


async def test_a_server_that_cannot_be_reached_is_left_alone_after_the_second_time(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path
) -> None:
    overrides = federating(certificate, signing_key_file, backoff_ms=60_000, remember_failure_ms=0)
    async with remote_server(certificate) as gone:
        pass
    async with installed(settings_for(postgres, s3, **overrides)) as own:
        answers = [await own.get(path_of(gone, f"id{number}")) for number in range(3)]

        assert {refusal(answer) for answer in answers} == {(502, "M_UNKNOWN")}
        assert 30 < int(answers[2].headers["Retry-After"]) <= 60
        assert await own.value("SELECT failures FROM server_backoff") == 2


async def test_ranges_and_conditions_of_media_not_fetched_yet(near: Installation, origin: RemoteServer) -> None:
    data = secrets.token_bytes(1000)
    origin.federation.update({name: serving_file(data) for name in ("a", "b", "c")})

    part = await near.get(path_of(origin, "a"), headers={"Range": "bytes=10-19"})
    fresh = await near.get(path_of(origin, "b"), headers={"If-None-Match": "*"})
    head = await near.request("HEAD", path_of(origin, "c"))

    assert (part.status, part.body) == (206, data[10:20])
    assert fresh.status == 304
    assert (head.status, head.headers["Content-Length"]) == (200, "1000")


@pytest.mark.parametrize("way", ["content", "address"])
async def test_one_fetch_serves_the_homeserver_that_does_not_hide_it(
    pair: tuple[Installation, Installation], origin: RemoteServer, way: str
) -> None:
    near, _ = pair
    data, go_on = secrets.token_bytes(400_000), asyncio.Event()
    origin.federation["shared"] = pausing(data, 300_000, go_on)
    hiding = asyncio.create_task(near.get(path_of(origin, "shared")))
    while not origin.asked():
        await asyncio.sleep(0.01)
    seeing = asyncio.create_task(near.get(path_of(origin, "shared"), token=OTHER_TOKEN, host=OTHER_SERVER_NAME))
    if way == "content":
        await near.rows(
            """INSERT INTO quarantined_hash VALUES (sha256($1::bytea), '@a:a', NULL, 0, $2, $3, $3) RETURNING 1""",
            data,
            len(data),
            SERVER_NAME,
        )
    else:
        await near.rows(
            "INSERT INTO media_mark VALUES ($1, 'shared', 'quarantine', $2, $2, '@a:a', NULL, 0) RETURNING 1",
            origin.server_name,
            SERVER_NAME,
        )
    go_on.set()
    with suppress(aiohttp.ClientError):  # what had begun is broken off
        assert (await hiding).status == 404
    hidden = [(await one.get(path_of(origin, "shared"))).status for one in pair]
    await near.rows("DELETE FROM quarantined_hash RETURNING 1")

    assert (await seeing).body == data
    assert len(origin.asked()) == 1
    assert hidden == [404, 404]
