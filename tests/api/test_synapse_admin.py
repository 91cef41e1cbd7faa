import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.mxc import Mxc
from tests.pictures.drawn import corners, encoded
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import SERVER_NAME, Answer, Installation, installed, settings_for

ADMIN, USER, OPERATOR = "admins-token", "users-token", "operators-token"
ADMIN_ID, USER_ID = f"@admin:{SERVER_NAME}", f"@user:{SERVER_NAME}"
BASE = "/_synapse/admin/v1"
LATER = 2_000_000_000_000
DOUBLE_CHECK = "Double check that you are providing a timestamp in milliseconds."
PICTURE = encoded(corners(64, 64), "PNG")


@pytest.fixture(scope="module")
async def synapse() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as running:
        running.register(ADMIN, ADMIN_ID)
        running.register(USER, USER_ID)
        running.admins = {ADMIN_ID}
        yield running


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, synapse: FakeHomeserver) -> AsyncIterator[Installation]:
    synapse.rooms.clear()
    synapse.avatars.clear()
    settings = settings_for(
        postgres,
        s3,
        homeservers=[{"server_name": SERVER_NAME, "client_api_url": synapse.url}],
        admin={"token": OPERATOR, "trash_ms": 0, "trash_interval_ms": 3_600_000},
    )
    async with installed(settings) as running:
        running.token = USER
        yield running


async def ask(own: Installation, method: str, path: str, *, token: str | None = ADMIN, **arguments: Any) -> Answer:
    return await own.request(method, f"{BASE}{path}", token=token, **arguments)


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


ENDPOINTS = [
    ("GET", f"/media/{SERVER_NAME}/abc"),
    ("DELETE", f"/media/{SERVER_NAME}/abc"),
    ("POST", f"/media/delete?before_ts={LATER}"),
    ("POST", f"/media/{SERVER_NAME}/delete?before_ts={LATER}"),
    ("POST", f"/purge_media_cache?before_ts={LATER}"),
    ("POST", f"/media/quarantine/{SERVER_NAME}/abc"),
    ("POST", f"/media/unquarantine/{SERVER_NAME}/abc"),
    ("GET", "/media/quarantine_changes"),
    ("POST", "/media/protect/abc"),
    ("POST", "/media/unprotect/abc"),
    ("POST", f"/user/{USER_ID}/media/quarantine"),
    ("POST", f"/room/!room:{SERVER_NAME}/media/quarantine"),
    ("POST", f"/quarantine_media/!room:{SERVER_NAME}"),
    ("GET", f"/users/{USER_ID}/media"),
    ("DELETE", f"/users/{USER_ID}/media"),
    ("GET", "/statistics/users/media"),
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_only_admins_are_let_in(own: Installation, method: str, path: str) -> None:
    assert refusal(await ask(own, method, path, token=None)) == (401, "M_MISSING_TOKEN")
    assert refusal(await ask(own, method, path, token="nobodys")) == (401, "M_UNKNOWN_TOKEN")
    as_user = await ask(own, method, path, token=USER)
    assert (*refusal(as_user), as_user.json["error"]) == (403, "M_FORBIDDEN", "You are not a server admin")
    assert await own.value("SELECT count(*) FROM audit_log") == 0


async def test_media_info_has_synapses_fields(own: Installation) -> None:
    media_id = await own.upload(b"data", query="?filename=a.png")

    for token in (ADMIN, OPERATOR):
        info = (await ask(own, "GET", f"/media/{SERVER_NAME}/{media_id}", token=token)).json["media_info"]
        assert info.pop("created_ts") > 1_700_000_000_000
        assert info == {
            "media_origin": None,
            "user_id": USER_ID,
            "media_id": media_id,
            "media_type": "image/png",
            "media_length": 4,
            "upload_name": "a.png",
            "filesystem_id": None,
            "url_cache": None,
            "last_access_ts": None,
            "quarantined_by": None,
            "authenticated": True,
            "safe_from_quarantine": False,
            "sha256": "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7",
        }
    unknown = await ask(own, "GET", "/media/elsewhere.example/abc")
    assert (*refusal(unknown), unknown.json["error"]) == (404, "M_NOT_FOUND", "Unknown media")


async def test_deleting_reaches_the_bucket(own: Installation) -> None:
    media_id = await own.upload(PICTURE)
    assert (await own.get(own.thumbnail_path(media_id))).status == 200

    answer = await ask(own, "DELETE", f"/media/{SERVER_NAME}/{media_id}")
    gone = await own.get(own.download_path(media_id))
    thumbnail = await own.get(own.thumbnail_path(media_id))
    info = await ask(own, "GET", f"/media/{SERVER_NAME}/{media_id}")
    await own.repository.administration.deletion.empty_trash()
    await own.repository.sweeps.outbox.drain()

    assert answer.json == {"deleted_media": [media_id], "total": 1}
    assert refusal(gone) == refusal(thumbnail) == refusal(info) == (404, "M_NOT_FOUND")
    assert await own.object_keys() == set()
    assert await own.value("SELECT count(*) FROM blob") == 0


async def test_what_is_not_ours_cannot_be_deleted(own: Installation) -> None:
    answer = await ask(own, "DELETE", "/media/elsewhere.example/abc")

    assert (*refusal(answer), answer.json["error"]) == (400, "M_UNKNOWN", "Can only delete local media")
    assert refusal(await ask(own, "DELETE", f"/media/{SERVER_NAME}/abc")) == (404, "M_NOT_FOUND")
    assert refusal(await ask(own, "POST", f"/media/elsewhere.example/delete?before_ts={LATER}")) == (400, "M_UNKNOWN")


async def test_the_trash_gives_back_what_a_hold_or_second_thought_wants(own: Installation) -> None:
    media_id, held_id = await own.upload(b"second thought"), await own.upload(b"evidence")
    deletion = own.repository.administration.deletion
    admin = await own.repository.administration.admins.identify(own.settings.homeservers[0], OPERATOR)
    mxc, held = Mxc(SERVER_NAME, media_id), Mxc(SERVER_NAME, held_id)
    await deletion.hold(held, admin, held=True, reason="the court says so")

    assert await deletion.delete([mxc, held], admin) == [mxc]
    assert (await own.get(own.download_path(held_id))).body == b"evidence"
    assert await deletion.restore(mxc, admin)
    assert (await own.get(own.download_path(media_id))).body == b"second thought"
    await deletion.empty_trash()
    assert (await own.get(own.download_path(media_id))).body == b"second thought"
    actions = [row["action"] for row in await own.rows("SELECT action FROM audit_log ORDER BY entry_id")]
    assert actions == ["hold", "delete", "restore"]


async def test_deleting_by_date_spares_what_is_hidden_protected_in_use_or_small(
    own: Installation, synapse: FakeHomeserver
) -> None:
    ids = {name: await own.upload(name.encode()) for name in ("plain", "hidden", "protected", "avatar", "room")}
    synapse.avatars = {f"@{n}:x": "mxc://x/y" for n in "abc"} | {
        ADMIN_ID: f"mxc://{SERVER_NAME}/{ids['avatar']}",
        "!room:x": f"mxc://{SERVER_NAME}/{ids['room']}",
    }
    synapse.rooms["!room:x"] = []
    await ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{ids['hidden']}")
    await ask(own, "POST", f"/media/protect/{ids['protected']}")

    too_new = await ask(own, "POST", "/media/delete?before_ts=40000000000")
    too_small = await ask(own, "POST", f"/media/delete?before_ts={LATER}&size_gt=1000")
    kept = await ask(own, "POST", f"/media/delete?before_ts={LATER}")
    all_of_them = await ask(own, "POST", f"/media/{SERVER_NAME}/delete?before_ts={LATER}&keep_profiles=false")

    assert too_new.json == too_small.json == {"deleted_media": [], "total": 0}
    assert kept.json == {"deleted_media": [ids["plain"]], "total": 1}
    assert sorted(all_of_them.json["deleted_media"]) == sorted([ids["avatar"], ids["room"]])


async def test_avatars_that_cannot_be_told_are_no_reason_to_delete(own: Installation) -> None:
    await own.upload(b"perhaps an avatar")

    answer = await ask(own, "POST", f"/media/delete?before_ts={LATER}", token=OPERATOR)

    assert answer.status == 502
    assert await own.value("SELECT count(*) FROM media WHERE state = 'ready'") == 1


@pytest.mark.parametrize("path", ["/media/delete", "/purge_media_cache"])
@pytest.mark.parametrize(
    ("query", "errcode", "message"),
    [
        ("", "M_MISSING_PARAM", "Missing required integer query parameter before_ts"),
        ("?before_ts=-1", "M_INVALID_PARAM", "Query parameter before_ts must be a positive integer."),
        ("?before_ts=soon", "M_INVALID_PARAM", "Query parameter before_ts must be an integer"),
        (
            "?before_ts=1700000000",
            "M_INVALID_PARAM",
            f"Query parameter before_ts you provided is from the year 1970. {DOUBLE_CHECK}",
        ),
    ],
)
async def test_bad_times_are_refused_in_synapses_words(
    own: Installation, path: str, query: str, errcode: str, message: str
) -> None:
    answer = await ask(own, "POST", f"{path}{query}")

    assert (*refusal(answer), answer.json["error"]) == (400, errcode, message)


async def test_quarantine_covers_every_copy_on_every_path_and_outlives_deletion(own: Installation) -> None:
    first, second = await own.upload(PICTURE), await own.upload(PICTURE)
    other = await own.upload(b"other")

    assert (await ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{first}", data=b"{}")).json == {}
    third = await own.upload(PICTURE)

    for media_id in (first, second, third):
        for path in (own.download_path(media_id), own.thumbnail_path(media_id), own.legacy_path(media_id)):
            assert refusal(await own.get(path)) == (404, "M_NOT_FOUND")
        assert refusal(await own.get(own.download_path(media_id), headers={"If-None-Match": "*"}))[0] == 404
    assert (await own.get(own.download_path(other))).status == 200
    info = (await ask(own, "GET", f"/media/{SERVER_NAME}/{second}")).json["media_info"]
    assert info["quarantined_by"] == ADMIN_ID
    await ask(own, "DELETE", f"/media/{SERVER_NAME}/{first}")
    await own.repository.administration.deletion.empty_trash()
    assert refusal(await own.get(own.download_path(await own.upload(PICTURE))))[0] == 404
    assert (await ask(own, "POST", f"/media/unquarantine/{SERVER_NAME}/{second}")).json == {}
    assert (await own.get(own.download_path(second))).body == PICTURE
    assert (await own.get(own.download_path(third))).body == PICTURE


async def test_protected_media_are_spared_and_keep_their_content_from_being_hidden_for_them(own: Installation) -> None:
    safe, copy = await own.upload(b"sticker"), await own.upload(b"sticker")
    assert (await ask(own, "POST", f"/media/protect/{safe}")).json == {}

    await ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{safe}")
    assert (await own.get(own.download_path(safe))).status == 200
    await ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{copy}")

    assert (await own.get(own.download_path(safe))).status == 200
    assert (await own.get(own.download_path(copy))).status == 404
    assert (await ask(own, "POST", f"/media/unprotect/{safe}")).json == {}
    assert (await own.get(own.download_path(safe))).status == 404


async def test_a_users_and_a_rooms_media_are_hidden_together(own: Installation, synapse: FakeHomeserver) -> None:
    ids = [await own.upload(f"file {number}".encode()) for number in range(4)]
    await ask(own, "POST", f"/media/protect/{ids[0]}")
    synapse.rooms["!room:x"] = [f"mxc://{SERVER_NAME}/{ids[1]}#auto", "mxc://elsewhere.example/abc", "no address"]

    room = await ask(own, "POST", "/room/!room:x/media/quarantine")
    again = await ask(own, "POST", "/quarantine_media/!room:x")
    user = await ask(own, "POST", f"/user/{USER_ID}/media/quarantine")

    assert (room.json, again.json) == ({"num_quarantined": 2}, {"num_quarantined": 0})
    assert user.json == {"num_quarantined": 2}
    assert [(await own.get(own.download_path(one))).status for one in ids] == [200, 404, 404, 404]


async def test_admins_may_look_at_what_is_hidden_and_nobody_else(own: Installation) -> None:
    media_id = await own.upload(b"hidden")
    await ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{media_id}")
    path = f"{own.download_path(media_id)}?admin_unsafely_bypass_quarantine=true"

    as_user = await own.get(path)

    assert (await own.get(path, token=ADMIN)).body == b"hidden"
    assert refusal(as_user) == (400, "M_UNKNOWN")
    assert as_user.json["error"] == "Must be a server admin to bypass quarantine"


async def test_changes_of_quarantine_are_listed_in_order(own: Installation) -> None:
    ids = [await own.upload(f"file {number}".encode()) for number in range(105)]
    assert (await ask(own, "GET", "/media/quarantine_changes")).json == {"next_batch": 0, "changes": []}
    await ask(own, "POST", f"/user/{USER_ID}/media/quarantine")

    first = (await ask(own, "GET", "/media/quarantine_changes")).json
    second = (await ask(own, "GET", f"/media/quarantine_changes?from={first['next_batch']}")).json
    too_far = await ask(own, "GET", f"/media/quarantine_changes?from={second['next_batch'] + 1}")

    assert (len(first["changes"]), len(second["changes"])) == (100, 5)
    assert {one["media_id"] for one in first["changes"] + second["changes"]} == set(ids)
    assert first["changes"][0].keys() == {"origin", "media_id", "quarantined"}
    assert refusal(too_far) == (400, "M_INVALID_PARAM")


async def test_a_users_media_are_listed_in_stretches_and_orders(own: Installation) -> None:
    ids = [await own.upload(b"x" * (number + 1), query=f"?filename={9 - number}.png") for number in range(5)]

    newest = (await ask(own, "GET", f"/users/{USER_ID}/media?limit=2")).json
    rest = (await ask(own, "GET", f"/users/{USER_ID}/media?limit=3&from=2")).json
    by_size = (await ask(own, "GET", f"/users/{USER_ID}/media?order_by=media_length&dir=f")).json
    by_name = (await ask(own, "GET", f"/users/{USER_ID}/media?order_by=upload_name")).json

    assert (newest["total"], newest["next_token"], "next_token" in rest) == (5, 2, False)
    assert [one["media_id"] for one in newest["media"] + rest["media"]] == ids[::-1]
    assert [one["media_length"] for one in by_size["media"]] == [1, 2, 3, 4, 5]
    assert [one["upload_name"] for one in by_name["media"]] == [f"{number}.png" for number in range(5, 10)]
    assert newest["media"][0].keys() == {
        "created_ts",
        "last_access_ts",
        "media_id",
        "media_length",
        "media_type",
        "quarantined_by",
        "safe_from_quarantine",
        "upload_name",
        "url_cache",
        "user_id",
        "authenticated",
        "sha256",
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users/@nobody:media.example/media", (404, "M_NOT_FOUND")),
        ("/users/@user:elsewhere.example/media", (400, "M_UNKNOWN")),
        (f"/users/{USER_ID}/media?limit=-1", (400, "M_INVALID_PARAM")),
        (f"/users/{USER_ID}/media?from=-1", (400, "M_INVALID_PARAM")),
        (f"/users/{USER_ID}/media?order_by=bar", (400, "M_INVALID_PARAM")),
        (f"/users/{USER_ID}/media?dir=bar", (400, "M_INVALID_PARAM")),
        ("/statistics/users/media?order_by=bar", (400, "M_INVALID_PARAM")),
        ("/statistics/users/media?from_ts=5&until_ts=5", (400, "M_INVALID_PARAM")),
        ("/statistics/users/media?search_term=", (400, "M_INVALID_PARAM")),
        ("/statistics/users/media?limit=soon", (400, "M_INVALID_PARAM")),
    ],
)
async def test_bad_questions_about_users_are_refused(own: Installation, path: str, expected: tuple[int, str]) -> None:
    assert refusal(await ask(own, "GET", path)) == expected


async def test_a_users_media_are_deleted_a_stretch_at_a_time(own: Installation) -> None:
    for number in range(5):
        await own.upload(f"file {number}".encode())

    first = await ask(own, "DELETE", f"/users/{USER_ID}/media?limit=3")
    second = await ask(own, "DELETE", f"/users/{USER_ID}/media")

    assert (first.json["total"], second.json["total"]) == (3, 2)
    assert (await ask(own, "GET", f"/users/{USER_ID}/media")).json == {"media": [], "total": 0}


async def test_statistics_count_each_users_uploads(own: Installation, synapse: FakeHomeserver) -> None:
    synapse.silent_profiles = {ADMIN_ID}
    for number in range(3):
        await own.upload(b"x" * 10 * (number + 1))
    await own.upload(b"admins", token=ADMIN)

    everybody = (await ask(own, "GET", "/statistics/users/media?order_by=media_length&dir=b")).json
    first = (await ask(own, "GET", "/statistics/users/media?limit=1")).json
    found = (await ask(own, "GET", "/statistics/users/media?search_term=USER")).json
    nobody = (await ask(own, "GET", f"/statistics/users/media?from_ts={LATER}")).json

    synapse.silent_profiles = set()
    assert everybody["users"] == [
        {"user_id": USER_ID, "displayname": "User", "media_count": 3, "media_length": 60},
        {"user_id": ADMIN_ID, "displayname": None, "media_count": 1, "media_length": 6},
    ]
    assert (first["total"], first["next_token"], len(first["users"])) == (2, 1, 1)
    assert [one["user_id"] for one in found["users"]] == [USER_ID]
    assert nobody == {"users": [], "total": 0}


async def test_purging_forgets_other_servers_media_except_what_is_hidden(own: Installation) -> None:
    ids = [await own.upload(f"file {number}".encode()) for number in range(3)]
    await own.rows("UPDATE media SET server_name = 'elsewhere.example', remote = true RETURNING 1")
    await ask(own, "POST", f"/media/quarantine/elsewhere.example/{ids[0]}")

    too_new = await ask(own, "POST", "/purge_media_cache?before_ts=40000000000")
    purged = await ask(own, "POST", f"/purge_media_cache?before_ts={LATER}")
    await own.repository.sweeps.outbox.drain()

    assert (too_new.json, purged.json) == ({"deleted": 0}, {"deleted": 2})
    assert await own.value("SELECT count(*) FROM media") == 1
    assert len(await own.object_keys()) == 1


async def test_media_of_other_servers_are_hidden_before_they_are_fetched(own: Installation) -> None:
    await ask(own, "POST", "/media/quarantine/elsewhere.example/abc")

    hidden = await own.get("/_matrix/client/v1/media/download/elsewhere.example/abc")
    await ask(own, "POST", "/media/unquarantine/elsewhere.example/abc")
    shown = await own.get("/_matrix/client/v1/media/download/elsewhere.example/abc")

    assert refusal(hidden) == (404, "M_NOT_FOUND")
    assert refusal(shown) == (502, "M_UNKNOWN")


async def test_the_audit_log_is_only_added_to(own: Installation) -> None:
    media_id = await own.upload(b"x")
    await ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{media_id}")
    await ask(own, "DELETE", f"/media/{SERVER_NAME}/{media_id}", token=OPERATOR)

    entries = await own.repository.administration.audit.read(None, 10)
    for query in ("UPDATE audit_log SET admin = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(Exception, match="only added to"):
            await own.rows(query)

    assert [(one.admin, one.action, one.target, one.affected) for one in entries] == [
        ("operator", "delete", f"mxc://{SERVER_NAME}/{media_id}", 1),
        (ADMIN_ID, "quarantine", f"mxc://{SERVER_NAME}/{media_id}", 1),
    ]


async def test_hiding_and_uploading_at_once_leaves_nothing_visible(own: Installation) -> None:
    first = await own.upload(PICTURE)

    *ids, _ = await asyncio.gather(
        *(own.upload(PICTURE) for _ in range(20)), ask(own, "POST", f"/media/quarantine/{SERVER_NAME}/{first}")
    )

    assert {(await own.get(own.download_path(str(media_id)))).status for media_id in ids} == {404}
