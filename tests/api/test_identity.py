"""Whose token is it? Judged by a homeserver, which is a real HTTP server here."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from aiohttp import web

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import SERVER_NAME, Installation, homeserver, installed, settings_for

CONFIG = "/_matrix/client/v1/media/config"
AS_TOKEN = "token-of-the-bridge"


@pytest.fixture(scope="module")
async def asked() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as running:
        yield running


@pytest.fixture(scope="module")
async def judged(postgres: EmbeddedPostgres, s3: EmbeddedS3, asked: FakeHomeserver) -> AsyncIterator[Installation]:
    homeservers = [
        homeserver(SERVER_NAME, AS_TOKEN, client_api_url=asked.url),
        homeserver("down.example", "x", client_api_url="http://127.0.0.1:1"),
    ]
    settings = settings_for(postgres, s3, homeservers=homeservers, identity={"timeout_ms": 2_000})
    async with installed(settings) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget_calls(asked: FakeHomeserver) -> None:
    asked.calls.clear()
    asked.hold = None


async def test_a_token_is_asked_about_once_and_then_believed(judged: Installation, asked: FakeHomeserver) -> None:
    asked.register("alice-1", "@alice:media.example")

    for _ in range(5):
        assert (await judged.get(CONFIG, token="alice-1")).status == 200

    assert asked.calls == [{"token": "alice-1"}]


async def test_requests_that_bring_a_new_token_together_ask_once(judged: Installation, asked: FakeHomeserver) -> None:
    asked.register("alice-2", "@alice:media.example")
    asked.hold = asyncio.Event()
    requests = [asyncio.create_task(judged.get(CONFIG, token="alice-2")) for _ in range(20)]
    while not asked.calls:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    asked.hold.set()

    assert {answer.status for answer in await asyncio.gather(*requests)} == {200}
    assert len(asked.calls) == 1


async def test_a_refusal_is_remembered_as_well(judged: Installation, asked: FakeHomeserver) -> None:
    asked.refuse("old", 401, "M_UNKNOWN_TOKEN", soft_logout=True)

    answers = [await judged.get(CONFIG, token="old") for _ in range(3)]

    assert [answer.json for answer in answers] == [
        {"errcode": "M_UNKNOWN_TOKEN", "error": "says the homeserver: M_UNKNOWN_TOKEN", "soft_logout": True}
    ] * 3
    assert len(asked.calls) == 1


async def test_an_answer_is_not_believed_for_longer_than_configured(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, asked: FakeHomeserver
) -> None:
    asked.register("brief", "@brief:media.example")
    homeservers = [homeserver(SERVER_NAME, AS_TOKEN, client_api_url=asked.url)]
    settings = settings_for(postgres, s3, homeservers=homeservers, identity={"cache_ms": 0})
    async with installed(settings) as fresh:
        assert (await fresh.get(CONFIG, token="brief")).status == 200
        asked.tokens.pop("brief")
        assert (await fresh.get(CONFIG, token="brief")).status == 401


@pytest.mark.parametrize(
    ("status", "errcode", "told"),
    [
        (401, "M_USER_LOCKED", (401, "M_USER_LOCKED")),
        (401, "M_MISSING_TOKEN", (401, "M_UNKNOWN_TOKEN")),
        (403, "M_FORBIDDEN", (403, "M_FORBIDDEN")),
        (400, "M_UNKNOWN_DEVICE", (400, "M_UNKNOWN_DEVICE")),
        (429, "M_LIMIT_EXCEEDED", (429, "M_LIMIT_EXCEEDED")),
        (500, "M_UNKNOWN", (502, "M_UNKNOWN")),
        (404, "M_UNRECOGNIZED", (502, "M_UNKNOWN")),
    ],
)
async def test_what_the_homeserver_says_is_passed_on(
    judged: Installation, asked: FakeHomeserver, status: int, errcode: str, told: tuple[int, str]
) -> None:
    asked.refuse(f"refused-{status}-{errcode}", status, errcode)

    answer = await judged.get(CONFIG, token=f"refused-{status}-{errcode}")

    assert (answer.status, answer.json["errcode"]) == told
    if errcode == "M_USER_LOCKED":
        assert answer.json["soft_logout"] is True


async def test_guests_may_look_but_not_upload(judged: Installation, asked: FakeHomeserver) -> None:
    asked.register("guest", "@guest:media.example", is_guest=True)
    media_id = await judged.upload(b"seen by guests")

    seen = await judged.get(judged.download_path(media_id), token="guest")
    refused = [
        await judged.get(CONFIG, token="guest"),
        await judged.request("POST", "/_matrix/media/v3/upload", token="guest", data=b"x"),
    ]

    assert seen.body == b"seen by guests"
    assert {(answer.status, answer.json["errcode"]) for answer in refused} == {(403, "M_GUEST_ACCESS_FORBIDDEN")}


async def test_asserted_users_and_devices_are_passed_on_and_remembered_apart(
    judged: Installation, asked: FakeHomeserver
) -> None:
    asked.register("hs-bridge", "@bot:media.example")

    for query in (
        "",
        "?user_id=@a:media.example",
        "?user_id=@b:media.example",
        "?device_id=D",
        "?user_id=@a:media.example",
    ):
        assert (await judged.get(CONFIG + query, token="hs-bridge")).status == 200

    assert asked.calls == [
        {"token": "hs-bridge"},
        {"token": "hs-bridge", "user_id": "@a:media.example"},
        {"token": "hs-bridge", "user_id": "@b:media.example"},
        {"token": "hs-bridge", "device_id": "D"},
    ]


async def test_the_uploader_is_whom_the_homeserver_names(judged: Installation, asked: FakeHomeserver) -> None:
    asked.register("carol", "@carol:media.example")

    media_id = await judged.upload(b"by carol", token="carol")

    assert await judged.value("SELECT uploaded_by FROM media WHERE media_id = $1", media_id) == "@carol:media.example"


async def test_an_appservice_acts_for_its_users_and_no_others(judged: Installation, asked: FakeHomeserver) -> None:
    upload = "/_matrix/media/v3/upload"
    own = await judged.upload(b"1")
    ghost = await judged.upload(b"2", query="?user_id=@_bridge_ghost:media.example")
    refused = [
        await judged.request("POST", f"{upload}?user_id={user_id}", data=b"x")
        for user_id in ("@alice:media.example", "@_bridge_x:other.example", "@_bridge_x:media.example.evil", "x", "")
    ]

    uploaders = dict(await judged.rows("SELECT media_id, uploaded_by FROM media"))
    assert uploaders[own] == "@bridge:media.example"
    assert uploaders[ghost] == "@_bridge_ghost:media.example"
    assert {(answer.status, answer.json["errcode"]) for answer in refused} == {(403, "M_FORBIDDEN")}
    assert asked.calls == []


async def test_a_homeserver_that_is_down_is_502_never_401(judged: Installation) -> None:
    answer = await judged.get(CONFIG, host="down.example", token="any")

    assert (answer.status, answer.json["errcode"]) == (502, "M_UNKNOWN")
    assert "down.example" in answer.json["error"]
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    "nonsense",
    [
        {"text": "<html>nginx</html>", "status": 502},
        {"text": "<html>nginx</html>", "status": 401},
        {"text": "[]", "status": 200},
        {"text": "{}", "status": 200},
        {"text": '{"user_id": 5}', "status": 200},
        {"text": "{" * 100_000, "status": 200},
        {"body": b"\xff\xfe", "status": 200},
        {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    ],
)
async def test_nonsense_is_no_verdict_and_is_not_remembered(
    judged: Installation, asked: FakeHomeserver, nonsense: dict[str, object]
) -> None:
    asked.answer_instead = web.Response(**nonsense)  # type: ignore[arg-type]
    token = f"patient-{secrets.token_hex(4)}"
    asked.register(token, "@patient:media.example")

    first, second = await judged.get(CONFIG, token=token), await judged.get(CONFIG, token=token)

    assert (first.status, first.json["errcode"]) == (502, "M_UNKNOWN")
    assert second.status == 200


async def test_a_homeserver_that_hangs_is_given_up(judged: Installation, asked: FakeHomeserver) -> None:
    asked.hold = asyncio.Event()

    answer = await judged.get(CONFIG, token="waiting")
    asked.hold.set()

    assert answer.status == 502


async def test_a_client_that_leaves_does_not_spoil_the_answer_for_others(
    judged: Installation, asked: FakeHomeserver
) -> None:
    asked.register("shared-wait", "@a:media.example")
    asked.hold = asyncio.Event()
    leaving = asyncio.create_task(judged.get(CONFIG, token="shared-wait"))
    while not asked.calls:
        await asyncio.sleep(0.01)
    staying = asyncio.create_task(judged.get(CONFIG, token="shared-wait"))
    await asyncio.sleep(0.05)
    leaving.cancel()
    asked.hold.set()

    assert (await staying).status == 200
    await asyncio.gather(leaving, return_exceptions=True)


@pytest.mark.parametrize(
    "user_id",
    ["@alice:down.example", "@alice:elsewhere.example", "@alice:evil:media.example", "@alice:MEDIA.example"],
)
async def test_a_homeserver_is_believed_for_its_own_users_only(
    judged: Installation, asked: FakeHomeserver, user_id: str
) -> None:
    asked.register(f"foreign-{user_id}", user_id)
    before = (await judged.get("/metrics")).body.decode()

    answers = [
        await judged.get(CONFIG, token=f"foreign-{user_id}"),
        await judged.request("POST", "/_matrix/media/v3/upload", token=f"foreign-{user_id}", data=b"in her name"),
        await judged.request("POST", "/_matrix/media/v1/create", token=f"foreign-{user_id}"),
    ]

    assert {(answer.status, answer.json["errcode"]) for answer in answers} <= {(403, "M_FORBIDDEN"), (502, "M_UNKNOWN")}
    if user_id == "@alice:down.example":
        counted = re.compile(r'mediarepo_foreign_users_refused_total\{server_name="media.example"\} (\S+)')
        after = (await judged.get("/metrics")).body.decode()
        assert float(counted.findall(after)[0]) > float((counted.findall(before) or ["0"])[0])


@pytest.mark.parametrize(
    ("user_id", "status"),
    [
        ("@_bridge_alice:media.example", 200),
        ("@_bridge_Alice|home:media.example", 200),
        ("@_bridge_:evil:media.example", 403),
        ("@_bridge_\u2028x:media.example", 403),
        ("@_bridge_é:media.example", 403),
        ("@_bridge_a b:media.example", 403),
        ("@_bridge_x:down.example", 403),
        ("@_bridge_" + "x" * 255 + ":media.example", 403),
        ("@:media.example", 403),
        ("_bridge_x:media.example", 403),
    ],
)
async def test_an_application_service_acts_for_user_ids_that_can_exist(
    judged: Installation, user_id: str, status: int
) -> None:
    answer = await judged.get(f"{CONFIG}?user_id={quote(user_id, safe='')}", token=AS_TOKEN)

    assert answer.status == status


@pytest.mark.parametrize("path", ["/_synapse/admin/v1/media/x/y", "/_mediarepo/admin/v1/usage", CONFIG])
@pytest.mark.parametrize("token", ["a%0ab", "%00", "%C3%A9", "a" * 5000, "%ED%A0%80"])
async def test_what_no_token_can_be_is_unknown_on_every_path(judged: Installation, path: str, token: str) -> None:
    answer = await judged.get(f"{path}?access_token={token}", token=None)

    assert (answer.status, answer.json["errcode"]) in {(401, "M_UNKNOWN_TOKEN"), (400, "M_INVALID_PARAM")}
