"""Homeservers that answer what none should: what is logged of it, and whom it costs something."""

import json
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.homeserver.admin_api import AvatarCache, HomeserverAdmins
from mediarepo.homeserver.client import HomeserverClient
from mediarepo.model.mxc import Mxc
from mediarepo.web.admin.api.endpoints import PREFIX
from tests.support.installation import Installation, installed, settings_for
from tests.support.raw import RawConnection
from tests.support.raw_site import RawSite, answer, raw_site
from tests.support.tenants import SYNAPSE, A

CONFIG = "/_matrix/client/v1/media/config"
WHOAMI = "/_matrix/client/v3/account/whoami"
USERS = "/_synapse/admin/v2/users?limit=500&from=0&deactivated=true"
ROOMS = "/_synapse/admin/v1/rooms?limit=500&from=0"
ROOM = "/_synapse/admin/v1/room/!r/media"
SECRET = "s3cretT0ken"


def document(value: object) -> bytes:
    return answer("Content-Type: application/json", "Connection: close", body=json.dumps(value).encode())


@pytest.fixture
async def site() -> AsyncIterator[RawSite]:
    async with raw_site() as running:
        running.answers[WHOAMI] = [document({"user_id": f"@admin:{A}"})]
        running.answers[f"/_synapse/admin/v1/users/@admin:{A}/admin"] = [document({"admin": True})]
        yield running


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, site: RawSite) -> AsyncIterator[Installation]:
    homeservers = [{"server_name": A, "client_api_url": site.url, "admin_token": SECRET}]
    async with installed(settings_for(postgres, s3, homeservers=homeservers)) as running:
        yield running


NO_HTTP = [
    b"",
    b"XYZ\r\n\r\n",
    answer("Content-Length: x"),
    answer("Content-Length: 50", body=b"abc"),
    answer("Transfer-Encoding: chunked", body=b"zz\r\n"),
    answer("Content-Encoding: gzip", "Content-Length: 3", body=b"abc"),
    answer("X: " + "y" * 20_000),
    answer(b"A\0b: c"),
    answer("Location: http://elsewhere.test/", first=b"HTTP/1.1 302 Found"),
]


@pytest.mark.parametrize("given", NO_HTTP, ids=range(len(NO_HTTP)))
async def test_tokens_are_in_no_log_whatever_a_homeserver_answers(
    own: Installation, site: RawSite, given: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site.answers = {f"{WHOAMI}?user_id=@{SECRET}:{A}": [given], WHOAMI: [given], USERS: [given]}
    with capture_logs() as logs:
        asserted = await own.get(f"{CONFIG}?user_id=%40{SECRET}%3A{A}", token=SECRET, host=A)
        admin = await own.get(f"{SYNAPSE}/media/{A}/abc", token=SECRET, host=A)
        async with HomeserverClient(own.settings.identity, own.repository.foundation.outages) as calls:
            homeserver = own.settings.homeservers[0]
            used = await AvatarCache(homeserver, calls, HomeserverAdmins(calls)).uses(Mxc(A, "abc"), None)

    assert (asserted.status, admin.status, used) == (502, 502, None)
    assert logs
    assert SECRET not in repr(logs)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "request_text",
    [
        f"GET {CONFIG}?access_token={SECRET} HTTP/1.1 X\r\nHost: a.test\r\n\r\n",
        f"GE T {CONFIG}?access_token={SECRET} HTTP/1.1\r\nHost: a.test\r\n\r\n",
        f"GET {CONFIG}?access_token={SECRET}\x00 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        f"GET {CONFIG} HTTP/1.1\r\nHost: a.test\r\nAuthorization : Bearer {SECRET}\r\n\r\n",
        f"GET {CONFIG} HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {SECRET}\x00\r\n\r\n",
        f"GET http://user:{SECRET}@a.test:99999/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
        f"GET {SECRET} HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ],
)
async def test_what_is_hardly_http_is_not_quoted_in_the_log(
    own: Installation, request_text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with RawConnection.open(own.url) as connection:
            await connection.send(request_text.encode())
            assert (await connection.answer()).status == 400

    assert "malformed_request" in {line["event"] for line in logs}
    assert SECRET not in repr(logs)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("value", [None, 1, "x", {}, [None], [[]], [1], ["\ud800"], [{"room_id": "\ud800"}]])
async def test_lists_that_are_none_are_no_failure_of_ours(own: Installation, site: RawSite, value: Any) -> None:
    site.answers[ROOM] = [document({"local": value, "remote": value})]
    site.answers[USERS] = [document({"users": value})]
    site.answers[ROOMS] = [document({"rooms": value})]
    room = await own.request("POST", f"{SYNAPSE}/room/%21r/media/quarantine", token=secrets.token_hex(), host=A)
    idle = await own.request(
        "POST", f"{SYNAPSE}/media/delete?before_ts=1800000000000", token=secrets.token_hex(), host=A
    )

    assert room.status in {200, 502}
    assert idle.status in {200, 502}


@pytest.mark.parametrize("address", [["mxc://a/b"], {"a": 1}, 5, None])
async def test_avatars_that_are_no_addresses_are_none(own: Installation, site: RawSite, address: Any) -> None:
    site.answers[USERS] = [document({"users": [{"avatar_url": address}]})]
    site.answers[ROOMS] = [document({"rooms": [{"room_id": "!r"}]})]
    site.answers["/_synapse/admin/v1/rooms/!r"] = [document({"avatar": address})]
    answered = await own.request(
        "POST", f"{SYNAPSE}/media/delete?before_ts=1800000000000", token=secrets.token_hex(), host=A
    )

    assert (answered.status, answered.json) == (200, {"deleted_media": [], "total": 0})


@pytest.mark.parametrize(
    "facts",
    [
        {"user_id": "@a\ud800:a.test"},
        {"user_id": ["@a:a.test"]},
        {"user_id": "@" + "a" * 60_000 + ":a.test"},
        {"user_id": f"@a:{A}", "device_id": "\x00\ud800", "is_guest": "true"},
        {"user_id": f"@a:{A}", "is_guest": 1e999},
    ],
)
async def test_strange_verdicts_are_no_failure_of_ours(own: Installation, site: RawSite, facts: Any) -> None:
    site.answers[WHOAMI] = [document(facts)]
    for path in (CONFIG, f"{SYNAPSE}/media/{A}/abc", f"{PREFIX}/media"):
        assert (await own.get(path, token=secrets.token_hex(), host=A)).status in {200, 403, 502}


@pytest.mark.parametrize("message", ["\x00\x1b[2J\r\n", "\ud800", ["x"], "x" * 10_000])
async def test_strange_words_of_a_refusal_are_passed_on_as_words(
    own: Installation, site: RawSite, message: Any
) -> None:
    body = json.dumps({"errcode": "M_UNKNOWN_TOKEN", "error": message}).encode()
    site.answers[WHOAMI] = [answer("Content-Type: application/json", body=body, first=b"HTTP/1.1 401 Unauthorized")]
    refused = await own.get(CONFIG, token=secrets.token_hex(), host=A)

    assert (refused.status, refused.json["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    assert isinstance(refused.json["error"], str)
    assert len(refused.json["error"]) <= 500
