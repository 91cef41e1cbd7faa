import asyncio
import gzip
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.api.test_remote_media import MIXED, federating, path_of, refusal, stored
from tests.support.installation import Installation, installed, settings_for
from tests.support.remote_server import BOUNDARY, RemoteServer, mixed, remote_server, serving_file


@pytest.fixture(scope="module")
async def near(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, certificate: Path, signing_key_file: Path
) -> AsyncIterator[Installation]:
    limits = {"idle_timeout_ms": 1500, "answer_timeout_ms": 1500, "max_bytes": 20_000_000, "max_fetches_per_server": 2}
    async with installed(settings_for(postgres, s3, **federating(certificate, signing_key_file, **limits))) as one:
        yield one


@pytest.fixture
async def origin(certificate: Path) -> AsyncIterator[RemoteServer]:
    async with remote_server(certificate) as server:
        yield server


def raw(body: bytes, *, content_type: str = MIXED["Content-Type"], **headers: str) -> Any:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": content_type, **headers})

    return handler


def quoted(boundary: str) -> str:
    return f'multipart/mixed; boundary="{boundary}"; charset=utf-8'


@pytest.mark.parametrize(
    "handler",
    [
        serving_file(b"data", closing=b""),
        serving_file(b"data", closing=b"--"),
        raw(mixed(b"data").replace(b"application/json\r\n", b"application/json; charset=utf-8\r\n")),
        raw(mixed(b"data").replace(b"Content-Type", b"content-TYPE")),
        raw(b"a preamble\r\n" + mixed(b"data") + b"an epilogue"),
        raw(mixed(b"data").removeprefix(b"\r\n")),
        raw(mixed(b"data"), content_type=quoted(BOUNDARY)),
        raw(mixed(b"data").replace(b"{}", b'{"restrictions": {"event_id": "$a"}}')),
        raw(mixed(b"data", disposition=None)),
    ],
)
async def test_what_other_servers_send_is_understood(near: Installation, origin: RemoteServer, handler: Any) -> None:
    origin.federation["abc"] = handler

    answer = await near.get(path_of(origin, "abc"))

    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"data", "image/png")


@pytest.mark.parametrize(
    ("content_type", "disposition", "expected"),
    [
        ("image/png", "attachment; filename=out.png", "inline; filename=out.png"),
        ("image/svg+xml", "inline; filename=out.svg", "attachment; filename=out.svg"),
        (
            "image/png",
            "inline; filename*=utf-8''%E2%98%83.png",
            "inline; filename=\"_.png\"; filename*=utf-8''%E2%98%83.png",
        ),
        ("image/png", 'inline; filename="a b.png"', "inline; filename=\"a b.png\"; filename*=utf-8''a%20b.png"),
        ("image/png", None, "inline"),
        ("application/pdf", None, "attachment"),
        (
            "text/html",
            'inline; filename="../../etc/passwd"',
            "attachment; filename=\".._.._etc_passwd\"; filename*=utf-8''..%2F..%2Fetc%2Fpasswd",
        ),
    ],
)
async def test_names_come_from_the_origin_and_the_disposition_from_us(
    near: Installation, origin: RemoteServer, content_type: str, disposition: str | None, expected: str
) -> None:
    origin.federation["abc"] = serving_file(b"data", content_type=content_type, disposition=disposition)

    assert (await near.get(path_of(origin, "abc"))).headers["Content-Disposition"] == expected


@pytest.mark.parametrize("content_type", ["", "x" * 300, "text/\x07html"])
async def test_a_type_that_cannot_be_passed_on_is_octet_stream(
    near: Installation, origin: RemoteServer, content_type: str
) -> None:
    origin.federation["abc"] = serving_file(b"data", content_type=content_type)

    assert (await near.get(path_of(origin, "abc"))).headers["Content-Type"] == "application/octet-stream"


BROKEN_OFF = (200, "broken off")


async def refused_or_broken_off(near: Installation, path: str) -> tuple[int, str]:
    """Ask for media that cannot be had whole; their first bytes may be on their way already when that shows."""
    try:
        return refusal(await near.get(path))
    except aiohttp.ClientPayloadError:
        return BROKEN_OFF


@pytest.mark.parametrize(
    "handler",
    [
        raw(b""),
        raw(b"garbage"),
        raw(random.Random(1).randbytes(100_000)),
        raw(mixed(b"data", boundary="another")),
        raw(mixed(b"data").replace(b"{}", b"")),
        raw(mixed(b"data").replace(b"{}", b"{" * 200_000)),
        raw(mixed(b"data").replace(b"{}", b" " * 200_000)),
        raw(mixed(b"data").replace(b"image/png", b"a" * 100_000)),
        raw(mixed(b"data")[:-20]),
        raw(mixed(b"data"), content_type="multipart/mixed"),
        raw(mixed(b"data"), content_type="multipart/form-data; boundary=x"),
        raw(gzip.compress(bytes(10_000_000)), **{"Content-Encoding": "gzip"}),
        raw(b"\r\n-" * 300_000),
        raw(mixed(b"data").replace(b"image/png", b"image/png\r\nContent-Length: 2")),
        raw(mixed(b"data").replace(b"image/png", b"image/png\r\nContent-Length: 200")),
    ],
)
async def test_nonsense_is_502_and_leaves_nothing(near: Installation, origin: RemoteServer, handler: Any) -> None:
    before = await near.object_keys()
    origin.federation["abc"] = handler

    assert await refused_or_broken_off(near, path_of(origin, "abc")) in {(502, "M_UNKNOWN"), BROKEN_OFF}
    assert await near.object_keys() == before
    assert await near.value("SELECT count(*) FROM media WHERE server_name = $1", origin.server_name) == 0


def stalling(after_bytes: int) -> Any:
    """Send so much of a file of 5 MB, and then nothing more."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if not after_bytes:
            await asyncio.sleep(3600)
        body = mixed(bytes(5_000_000))
        response = web.StreamResponse(headers=MIXED)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:after_bytes])
        await asyncio.sleep(3600)
        return response

    return handler


@pytest.mark.parametrize("after_bytes", [0, 10, 300, 1_000_000])
async def test_an_origin_that_stops_sending_is_502_or_breaks_us_off(
    near: Installation, origin: RemoteServer, after_bytes: int
) -> None:
    origin.federation["abc"] = stalling(after_bytes)

    told = await refused_or_broken_off(near, path_of(origin, "abc", "?timeout_ms=0"))

    assert told == ((502, "M_UNKNOWN") if after_bytes < 300 else BROKEN_OFF)
    assert refusal(await near.get(path_of(origin, "abc", "?timeout_ms=0"))) == (502, "M_UNKNOWN")


async def test_an_endless_body_is_cut_off_at_the_limit(near: Installation, origin: RemoteServer) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers=MIXED)
        await response.prepare(request)
        await response.write(mixed(b"").removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode()))
        while sent < 2_000_000_000:
            await response.write(bytes(1_000_000))
            sent += 1_000_000
        return response

    origin.federation["abc"] = endless

    first = await refused_or_broken_off(near, path_of(origin, "abc"))
    assert first in {BROKEN_OFF, (502, "M_TOO_LARGE")}  # the limit may be met before the answer has begun
    assert refusal(await near.get(path_of(origin, "abc"))) == (502, "M_TOO_LARGE")
    assert sent < 100_000_000


async def test_a_slow_origin_holds_up_its_own_media_only(
    near: Installation, origin: RemoteServer, certificate: Path
) -> None:
    origin.federation |= {f"slow{number}": stalling(0) for number in range(10)}
    async with remote_server(certificate) as quick:
        quick.federation["abc"] = serving_file(b"quick")
        slow = [asyncio.create_task(near.get(path_of(origin, f"slow{number}"))) for number in range(10)]
        while len(origin.asked()) < 2:
            await asyncio.sleep(0.01)

        assert (await near.get(path_of(quick, "abc"))).body == b"quick"
        assert len(origin.asked()) == 2
        assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


def in_two(head: bytes, rest: bytes) -> Any:
    """Send a body in two pieces, the second a while after the first."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=MIXED)
        response.content_length = len(head + rest)
        await response.prepare(request)
        await response.write(head)
        await asyncio.sleep(0.1)
        await response.write(rest)
        return response

    return handler


@pytest.mark.parametrize("says", [3, 4, 6, 8])
async def test_a_file_that_is_not_as_long_as_its_part_says_is_never_answered_as_whole(
    near: Installation, origin: RemoteServer, says: int
) -> None:
    body = mixed(b"databy").replace(b"image/png\r\n", b"image/png\r\nContent-Length: %d\r\n" % says)
    at = body.index(b"databy") + 4
    origin.federation["abc"] = in_two(body[:at], body[at:])

    try:
        answer = await near.get(path_of(origin, "abc"))
    except aiohttp.ClientPayloadError:
        assert says != 6
    else:
        assert (answer.status, answer.body == b"databy") == ((200, True) if says == 6 else (502, False))
    if says == 6:
        await stored(near, origin)
    else:
        assert await near.value("SELECT count(*) FROM media WHERE server_name = $1", origin.server_name) == 0


async def test_hidden_content_before_a_long_epilogue_is_not_passed_on(near: Installation, origin: RemoteServer) -> None:
    data = random.Random(7).randbytes(1000)
    await near.rows("DELETE FROM quarantined_hash RETURNING 1")
    await near.rows("INSERT INTO quarantined_hash VALUES (sha256($1::bytea), '@a:a', NULL, 0, 1000) RETURNING 1", data)
    origin.federation["abc"] = raw(mixed(data) + b"an epilogue" * 100_000)

    answer = await near.get(path_of(origin, "abc"))

    assert refusal(answer) == (502, "M_UNKNOWN")
    await near.rows("DELETE FROM quarantined_hash RETURNING 1")
