"""Quarantine of content that is too short to say anything."""

from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import SERVER_NAME, Answer, Installation, installed, settings_for

ADMIN, USER = "admins-token", "users-token"
ADMIN_ID, USER_ID = f"@admin:{SERVER_NAME}", f"@user:{SERVER_NAME}"


@pytest.fixture
async def synapse() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as running:
        running.register(ADMIN, ADMIN_ID)
        running.register(USER, USER_ID)
        running.admins = {ADMIN_ID}
        yield running


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, synapse: FakeHomeserver) -> AsyncIterator[Installation]:
    homeservers = [{"server_name": SERVER_NAME, "client_api_url": synapse.url}]
    async with installed(settings_for(postgres, s3, homeservers=homeservers)) as running:
        running.token = USER
        yield running


async def ask(own: Installation, method: str, path: str) -> Answer:
    return await own.request(method, f"/_synapse/admin/v1{path}", token=ADMIN)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}"])
@pytest.mark.parametrize("way", ["media", "user", "room"])
async def test_content_that_says_nothing_is_hidden_by_its_address_only(
    own: Installation, synapse: FakeHomeserver, content: bytes, way: str
) -> None:
    others = await own.upload(content, token=ADMIN)
    spammers = await own.upload(content)
    synapse.rooms["!room:x"] = [f"mxc://{SERVER_NAME}/{spammers}"]
    path = {
        "media": f"/media/quarantine/{SERVER_NAME}/{spammers}",
        "user": f"/user/{USER_ID}/media/quarantine",
        "room": "/room/!room:x/media/quarantine",
    }[way]

    answer = await ask(own, "POST", path)
    later = await own.upload(content, token=ADMIN)

    assert answer.json == ({} if way == "media" else {"num_quarantined": 1})
    assert [(await own.get(own.download_path(one))).status for one in (spammers, others, later)] == [404, 200, 200]
    assert [one["media_id"] for one in (await ask(own, "GET", "/media/quarantine_changes")).json["changes"]] == [
        spammers
    ]
    await ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{later}")
    await ask(own, "POST", f"/media/unquarantine/{SERVER_NAME}/{spammers}")
    assert [(await own.get(own.download_path(one))).status for one in (spammers, others, later)] == [200, 200, 404]


async def test_hashes_of_nothing_that_were_hidden_before_hide_nothing_any_more(own: Installation) -> None:
    empty, short, longer = [await own.upload(content) for content in (b"", b"{}", b"bad")]
    for content in (b"", b"{}", b"bad"):
        await own.rows("INSERT INTO quarantined_hash VALUES (sha256($1::bytea), '@a:a', NULL, 0) RETURNING 1", content)

    assert [(await own.get(own.download_path(one))).status for one in (empty, short, longer)] == [200, 200, 404]
    listed = (await ask(own, "GET", f"/users/{USER_ID}/media?dir=f")).json["media"]
    assert [one["quarantined_by"] for one in listed] == [None, None, "@a:a"]
