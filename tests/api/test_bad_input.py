"""One test for each row of the table in docs/bad-input.md."""

import asyncio
import gzip
import secrets
from collections.abc import AsyncIterator

import pytest

from tests.support.installation import OTHER_SERVER_NAME, SERVER_NAME, TOKEN, Installation
from tests.support.raw import RawConnection, ask_raw

AUTH = f"Host: {SERVER_NAME}\r\nAuthorization: Bearer {TOKEN}\r\n"
UPLOAD = "POST /_matrix/media/v3/upload HTTP/1.1\r\n"


@pytest.fixture(scope="session")
async def media_id(shared: Installation) -> str:
    return await shared.upload(b"some bytes")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/_matrix/media/v3/upload"),
        ("GET", "/_matrix/client/v1/media/download/media.example/abc"),
        ("GET", "/_matrix/client/v1/media/download/media.example/mxc:%2F%2Fx%2Fy"),
        ("GET", "/_matrix/client/v1/media/thumbnail/media.example/abc"),
        ("GET", "/_matrix/client/v1/media/config"),
        ("GET", "/_matrix/media/v3/config"),
    ],
)
async def test_no_token_is_401_before_anything_else_is_looked_at(shared: Installation, method: str, path: str) -> None:
    answer = await shared.request(method, path, token=None)

    assert (answer.status, answer.json["errcode"]) == (401, "M_MISSING_TOKEN")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("authorization", ["Bearer", "Bearer ", "Basic abc", "", "token"])
async def test_another_scheme_is_no_token(shared: Installation, authorization: str) -> None:
    answer = await shared.get("/_matrix/client/v1/media/config", token=None, headers={"Authorization": authorization})

    assert (answer.status, answer.json["errcode"]) == (401, "M_MISSING_TOKEN")


@pytest.mark.parametrize("token", ["nonsense", "x" * 5000, "caf\u00e9", "a%0d%0aX: y"])
async def test_an_unknown_token_is_401_with_soft_logout(shared: Installation, token: str) -> None:
    answer = await shared.get("/_matrix/client/v1/media/config", token=token)

    assert (answer.status, answer.json["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    assert answer.json["soft_logout"] is False


async def test_the_token_may_stand_in_the_query_but_not_twice(shared: Installation) -> None:
    path = f"/_matrix/client/v1/media/config?access_token={TOKEN}"

    assert (await shared.get(path, token=None)).status == 200
    assert (await shared.get(path)).json["errcode"] == "M_MISSING_TOKEN"
    assert (await shared.get(path.replace(TOKEN, "a%0d%0ab"), token=None)).json["errcode"] == "M_UNKNOWN_TOKEN"


@pytest.mark.parametrize("host", ["unknown.example", "media.example.evil.example", "", "media.example@evil", "[::1"])
async def test_an_unknown_host_is_404(shared: Installation, host: str) -> None:
    request = f"GET /_matrix/client/v1/media/config HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"

    answer = await ask_raw(shared.url, request.encode())

    assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_token_of_one_homeserver_is_nothing_at_another(shared: Installation, media_id: str) -> None:
    answer = await shared.get(shared.download_path(media_id), host="other.example")

    assert (answer.status, answer.json["errcode"]) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize("host", ["media.example", "media.example:8448", "MEDIA.example"])
async def test_a_host_counts_with_and_without_port_in_any_case(shared: Installation, host: str, media_id: str) -> None:
    assert (await shared.get(shared.download_path(media_id), host=host)).status == 200


@pytest.mark.parametrize(
    "segment", ["..", ".", "%2e%2e", "..%2f..", "%00", "a%00b", "%ff", "a%20b", "%2F", "a%2Fb", "", "%c0%ae"]
)
async def test_a_malformed_server_name_or_media_id_is_400(shared: Installation, segment: str) -> None:
    for path in (f"{segment}/abc", f"media.example/{segment}"):
        for route in ("client/v1/media/download", "client/v1/media/thumbnail"):
            answer = await ask_raw(
                shared.url, f"GET /_matrix/{route}/{path}?width=1&height=1 HTTP/1.1\r\n{AUTH}\r\n".encode()
            )
            assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM"), path


@pytest.mark.parametrize("name", ["a%2Fb", "%2e%2e%2fetc%2fpasswd", "%00", "%ff", "x" * 3000])
async def test_a_malformed_file_name_in_the_path_is_400(shared: Installation, media_id: str, name: str) -> None:
    answer = await shared.get(f"{shared.download_path(media_id)}/{name}")

    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")


async def test_a_path_that_climbs_is_no_endpoint(shared: Installation) -> None:
    for path in (
        "/_matrix/media/../../etc/passwd",
        "/_matrix/client/v1/media/download/a/b/c/d",
        "/..",
        "//",
        "/%2e%2e",
    ):
        answer = await ask_raw(shared.url, f"GET {path} HTTP/1.1\r\n{AUTH}\r\n".encode())
        assert (answer.status, answer.json["errcode"]) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ("", "M_MISSING_PARAM"),
        ("width=32", "M_MISSING_PARAM"),
        ("height=32", "M_MISSING_PARAM"),
        ("width=a&height=32", "M_INVALID_PARAM"),
        ("width=&height=32", "M_INVALID_PARAM"),
        ("width=0&height=32", "M_INVALID_PARAM"),
        ("width=-1&height=32", "M_INVALID_PARAM"),
        ("width=1.5&height=32", "M_INVALID_PARAM"),
        ("width=0x20&height=32", "M_INVALID_PARAM"),
        ("width=%D9%A3&height=32", "M_INVALID_PARAM"),
        ("width=32&height=32&method=stretch", "M_INVALID_PARAM"),
        ("width=32&height=32&animated=yes", "M_INVALID_PARAM"),
        ("width=32&height=32&x=%ff", "M_INVALID_PARAM"),
        ("&".join(f"a{n}=1" for n in range(2000)), "M_INVALID_PARAM"),
    ],
)
async def test_bad_thumbnail_parameters_are_400(shared: Installation, media_id: str, query: str, errcode: str) -> None:
    answer = await shared.get(f"/_matrix/client/v1/media/thumbnail/media.example/{media_id}?{query}")

    assert (answer.status, answer.json["errcode"]) == (400, errcode)


@pytest.mark.parametrize(
    "path",
    [
        "/_matrix/media/unknown",
        "/_matrix/media/v3/unknown",
        "/_matrix/media/v9/upload",
        "/_matrix/client/v1/unknown",
        "/_matrix/client/v1/media/preview",
        "/_matrix/media/v3/preview",
        "/",
        "/_synapse/admin/v1/media",
    ],
)
async def test_an_unknown_path_is_404_unrecognized(shared: Installation, path: str) -> None:
    answer = await shared.get(path)

    assert (answer.status, answer.json["errcode"]) == (404, "M_UNRECOGNIZED")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/_matrix/media/v3/upload"),
        ("GET", "/_matrix/media/v3/upload"),
        ("DELETE", "/_matrix/client/v1/media/download/media.example/abc"),
        ("POST", "/_matrix/client/v1/media/config"),
        ("PUT", "/_matrix/client/v1/media/config"),
    ],
)
async def test_a_wrong_method_is_405_unrecognized(shared: Installation, method: str, path: str) -> None:
    answer = await shared.request(method, path)

    assert (answer.status, answer.json["errcode"]) == (405, "M_UNRECOGNIZED")
    assert "OPTIONS" in answer.headers["Allow"]


async def test_remote_media_is_404_for_strangers_and_502_where_no_key_can_sign(shared: Installation) -> None:
    for token in (None, ""):
        answer = await shared.get("/_matrix/media/v3/download/matrix.org/abc", token=token)
        assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")
    answer = await shared.get("/_matrix/client/v1/media/download/matrix.org/abc")
    assert (answer.status, answer.json["errcode"]) == (502, "M_UNKNOWN")


@pytest.mark.parametrize("token", ["", None, "nonsense"])
async def test_options_is_answered_everywhere_without_asking_anybody(shared: Installation, token: str | None) -> None:
    for path in ("/_matrix/media/v3/upload", "/_matrix/client/v1/media/download/a/b", "/_matrix/unknown"):
        answer = await shared.request("OPTIONS", path, token=token, host="unknown.example")

        assert (answer.status, answer.body) == (204, b"")
        assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        assert int(answer.headers["Access-Control-Max-Age"]) > 0


async def test_every_response_carries_the_security_headers(shared: Installation, media_id: str) -> None:
    answers = [
        await shared.get(shared.download_path(media_id)),
        await shared.get("/_matrix/media/unknown"),
        await shared.get(shared.download_path("absent")),
        await shared.get("/health/live"),
        await shared.request("OPTIONS", "/"),
    ]
    for answer in answers:
        assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'; script-src 'none';")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert answer.headers["X-Robots-Tag"] == "noindex, nofollow, noarchive, noimageindex"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "aiohttp" not in answer.headers["Server"]


async def test_a_length_over_the_limit_is_413_before_the_body_is_read(shared: Installation) -> None:
    request = f"{UPLOAD}{AUTH}Content-Length: 5000000000\r\n\r\n"

    answer = await ask_raw(shared.url, request.encode())

    assert (answer.statuses, answer.json["errcode"]) == ([413], "M_TOO_LARGE")


async def test_a_chunked_body_over_the_limit_is_413_midway_and_leaves_nothing(shared: Installation) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 200_000_000:
            sent += 1_000_000
            yield secrets.token_bytes(1_000_000)

    keys = await shared.object_keys()
    answer = await shared.request("POST", "/_matrix/media/v3/upload", data=endless())

    assert (answer.status, answer.json["errcode"]) == (413, "M_TOO_LARGE")
    assert sent < 200_000_000
    assert await shared.object_keys() == keys
    assert [found async for found in shared.store.list_multiparts(f"{shared.store.prefix}/")] == []
    assert await shared.value("SELECT count(*) FROM multipart_intent") == 0


async def test_an_upload_of_25_mb_with_a_bad_token_gets_its_401(shared: Installation) -> None:
    answer = await shared.request("POST", "/_matrix/media/v3/upload", token="nonsense", data=bytes(25_000_000))

    assert (answer.status, answer.json["errcode"]) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (f"Host: {SERVER_NAME}\r\nAuthorization: Bearer nonsense\r\nContent-Length: 10\r\n", 401),
        (f"{AUTH}Content-Length: 5000000000\r\n", 413),
        ("Host: unknown.example\r\nContent-Length: 10\r\n", 404),
    ],
)
async def test_expect_100_is_answered_with_the_refusal_not_with_100(
    shared: Installation, headers: str, status: int
) -> None:
    answer = await ask_raw(shared.url, f"{UPLOAD}{headers}Expect: 100-continue\r\n\r\n".encode())

    assert answer.statuses == [status]
    assert answer.headers["connection"] == "close"


async def test_expect_100_is_answered_with_100_when_the_body_is_welcome(shared: Installation) -> None:
    async with RawConnection.open(shared.url) as connection:
        await connection.send(f"{UPLOAD}{AUTH}Content-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
        first = await connection.answer(informational=True)
        await connection.send(b"body")
        last = await connection.answer()

    assert (first.statuses, last.statuses) == ([100], [200])


async def test_http_1_0_is_never_answered_with_100(shared: Installation) -> None:
    upload = UPLOAD.replace("HTTP/1.1", "HTTP/1.0")
    answer = await ask_raw(shared.url, f"{upload}{AUTH}Content-Length: 4\r\nExpect: 100-continue\r\n\r\nbody".encode())

    assert answer.statuses == [200]


@pytest.mark.parametrize("name", ["user_id", "device_id", "org.matrix.msc3202.device_id"])
@pytest.mark.parametrize("characters", ["%00", "%0A", "%C2%85", "%7F"])
async def test_control_characters_in_an_asserted_identity_are_refused(
    shared: Installation, name: str, characters: str
) -> None:
    value = f"@_bridge_{characters}:{SERVER_NAME}"
    answer = await shared.request("POST", f"/_matrix/media/v3/upload?{name}={value}", data=b"x")

    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")


async def test_an_unknown_expectation_is_ignored(shared: Installation) -> None:
    answer = await ask_raw(shared.url, f"{UPLOAD}{AUTH}Content-Length: 4\r\nExpect: tea\r\n\r\nbody".encode())

    assert answer.statuses == [200]


@pytest.mark.parametrize("size", [4, 9_000_000])
async def test_a_body_shorter_than_its_length_stores_nothing(shared: Installation, size: int) -> None:
    before = await shared.value("SELECT count(*) FROM media")
    keys = await shared.object_keys()
    async with RawConnection.open(shared.url) as connection:
        await connection.send(f"{UPLOAD}{AUTH}Content-Length: {size + 1}\r\n\r\n".encode() + secrets.token_bytes(size))
        connection.abort()
    while shared.repository.memory.used:
        await asyncio.sleep(0.01)
    while await shared.value("SELECT count(*) FROM multipart_intent"):
        await asyncio.sleep(0.01)

    assert await shared.value("SELECT count(*) FROM media") == before
    assert await shared.object_keys() == keys
    assert [found async for found in shared.store.list_multiparts(f"{shared.store.prefix}/")] == []


async def test_a_body_longer_than_its_length_is_400(shared: Installation) -> None:
    before = await shared.value("SELECT count(*) FROM media")
    request = f"{UPLOAD}{AUTH}Content-Length: 4\r\n\r\nbodyGARBAGE GARBAGE\r\n\r\n"

    answer = await ask_raw(shared.url, request.encode())

    assert (answer.status, answer.json["errcode"]) == (400, "M_UNKNOWN")
    assert await shared.value("SELECT count(*) FROM media") == before


async def test_bytes_that_come_after_the_body_are_no_part_of_it(shared: Installation) -> None:
    async with RawConnection.open(shared.url) as connection:
        await connection.send(f"{UPLOAD}{AUTH}Content-Length: 4\r\n\r\nbody".encode())
        first = await connection.answer()
        await connection.send(b"GARBAGE GARBAGE\r\n\r\n")
        second = await connection.answer()

    media_id = first.json["content_uri"].rpartition("/")[2]
    assert (await shared.get(shared.download_path(media_id))).body == b"body"
    assert (second.status, second.json["errcode"]) == (400, "M_UNKNOWN")


async def test_an_overlong_file_name_is_400(shared: Installation) -> None:
    for name in ("x" * 65_536, "%E2%98%95" * 21_845):
        answer = await shared.request("POST", f"/_matrix/media/v3/upload?filename={name}", data=b"x")
        assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("name", ["%00", "a%00b", "%ff%fe"])
async def test_a_file_name_that_is_no_text_is_400(shared: Installation, name: str) -> None:
    answer = await shared.request("POST", f"/_matrix/media/v3/upload?filename={name}", data=b"x")

    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", 'Text/Plain;x="y;z"', "img/png", "nonsense"])
async def test_a_content_type_with_parameters_is_kept_as_it_is(shared: Installation, content_type: str) -> None:
    media_id = await shared.upload(b"x", content_type=content_type)

    assert (await shared.get(shared.download_path(media_id))).headers["Content-Type"] == content_type


@pytest.mark.parametrize("value", ["caf\u00e9/x".encode(), b"a/b" * 100, b"text/\xff"])
async def test_a_content_type_that_is_no_ascii_is_400(shared: Installation, value: bytes) -> None:
    answer = await ask_raw(
        shared.url, f"{UPLOAD}{AUTH}Content-Length: 1\r\nContent-Type: ".encode() + value + b"\r\n\r\nx"
    )

    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("value", [b"text/plain\rX-Evil: 1", b"text/plain\nX-Evil: 1", b"text/\0plain"])
async def test_a_header_with_cr_lf_or_nul_is_no_http(shared: Installation, value: bytes) -> None:
    answer = await ask_raw(
        shared.url, f"{UPLOAD}{AUTH}Content-Length: 1\r\nContent-Type: ".encode() + value + b"\r\n\r\nx"
    )

    if answer.status == 200:
        media_id = answer.json["content_uri"].rpartition("/")[2]
        stored = await shared.get(shared.download_path(media_id))
        assert "X-Evil" not in stored.headers
        assert stored.headers["Content-Type"] == "text/plain"
        return
    assert (answer.status, answer.json["errcode"]) == (400, "M_UNKNOWN")
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "request_text",
    [
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
        f"{UPLOAD}{AUTH}Content-Length: -5\r\n\r\n",
        f"{UPLOAD}{AUTH}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        f"{UPLOAD}{AUTH}Content-Length: abc\r\n\r\n",
        f"{UPLOAD}{AUTH}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\nX: {'y' * 100_000}\r\n\r\n",
    ],
)
async def test_what_is_hardly_http_is_400_in_json_too(shared: Installation, request_text: str) -> None:
    answer = await ask_raw(shared.url, request_text.encode("latin-1"))

    assert (answer.status, answer.json["errcode"]) == (400, "M_UNKNOWN")
    assert answer.headers["connection"] == "close"


async def test_a_broken_chunk_is_400_and_stores_nothing(shared: Installation) -> None:
    before = await shared.value("SELECT count(*) FROM media")

    answer = await ask_raw(
        shared.url, f"{UPLOAD}{AUTH}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZZ\r\n".encode()
    )

    assert answer.status == 400
    assert await shared.value("SELECT count(*) FROM media") == before


async def test_an_encoded_body_is_stored_as_it_was_sent(shared: Installation) -> None:
    data = gzip.compress(b"hello " * 1000)

    answer = await shared.request("POST", "/_matrix/media/v3/upload", data=data, headers={"Content-Encoding": "gzip"})
    stored = await shared.get(shared.download_path(answer.json["content_uri"].rpartition("/")[2]))

    assert stored.body == data
    assert "Content-Encoding" not in stored.headers


async def test_a_multipart_form_is_just_bytes(shared: Installation) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nhello\r\n--x--\r\n'

    media_id = await shared.upload(body, content_type="multipart/form-data; boundary=x")

    assert (await shared.get(shared.download_path(media_id))).body == body


async def test_a_huge_range_header_is_cheap_and_ignored(shared: Installation, media_id: str) -> None:
    header = "bytes=" + ",".join("0-1" for _ in range(10_000))

    answer = await shared.get(shared.download_path(media_id), headers={"Range": header})

    assert (answer.status, answer.body) == (200, b"some bytes")


async def test_a_get_with_a_body_is_answered(shared: Installation, media_id: str) -> None:
    answer = await shared.get(shared.download_path(media_id), data=b"what is this")

    assert answer.status == 200


@pytest.mark.parametrize(
    ("target_host", "host", "status"),
    [
        (SERVER_NAME, OTHER_SERVER_NAME, 200),
        (SERVER_NAME, "nobody.example", 200),
        (f"{SERVER_NAME}:8448", OTHER_SERVER_NAME, 200),
        (f"user@{SERVER_NAME}", OTHER_SERVER_NAME, 200),
        (OTHER_SERVER_NAME, SERVER_NAME, 401),
        ("nobody.example", SERVER_NAME, 404),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
async def test_the_host_of_a_whole_url_counts_more_than_the_header(
    shared: Installation, target_host: str, host: str, status: int, scheme: str
) -> None:
    target = f"{scheme}://{target_host}/_matrix/client/v1/media/config"
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"

    answer = await ask_raw(shared.url, request.encode())

    assert answer.status == status


@pytest.mark.parametrize(
    "coding",
    [
        "gzip, chunked",
        "gzip,chunked",
        "deflate, gzip, chunked",
        "chunked, chunked",
        "identity, chunked",
        "GZIP, Chunked",
    ],
)
async def test_bodies_are_chunked_or_nothing(shared: Installation, coding: str) -> None:
    body = "4\r\nbody\r\n0\r\n\r\n"

    answer = await ask_raw(shared.url, f"{UPLOAD}{AUTH}Transfer-Encoding: {coding}\r\n\r\n{body}".encode())

    assert (answer.status, answer.json["errcode"]) in {(501, "M_UNRECOGNIZED"), (400, "M_UNKNOWN")}
    split = "".join(f"Transfer-Encoding: {one.strip()}\r\n" for one in coding.split(","))
    answer = await ask_raw(shared.url, f"{UPLOAD}{AUTH}{split}\r\n{body}".encode())
    assert (answer.status, answer.json["errcode"]) in {(501, "M_UNRECOGNIZED"), (400, "M_UNKNOWN")}


async def test_a_chunked_body_in_any_case_is_stored(shared: Installation) -> None:
    body = "4\r\nbody\r\n0\r\n\r\n"

    answer = await ask_raw(shared.url, f"{UPLOAD}{AUTH}Transfer-Encoding: Chunked\r\n\r\n{body}".encode())

    assert answer.status == 200
