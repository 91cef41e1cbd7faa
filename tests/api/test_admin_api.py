import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.web.admin.api.endpoint_table import ENDPOINTS
from mediarepo.web.admin.api.endpoints import PREFIX
from mediarepo.web.admin.api.openapi import openapi_document
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import OTHER_SERVER_NAME, SERVER_NAME, Answer, Installation, installed, settings_for

ADMIN, USER, OTHER_USER, OPERATOR = "admins-token", "users-token", "others-token", "operators-token"
ADMIN_ID, USER_ID, OTHER_ID = f"@admin:{SERVER_NAME}", f"@user:{SERVER_NAME}", f"@user:{OTHER_SERVER_NAME}"
POLICY = {"name": "old", "what": "local", "max_age_ms": 0, "keep_avatars": False}


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, synapse: FakeHomeserver) -> AsyncIterator[Installation]:
    settings = settings_for(
        postgres,
        s3,
        homeservers=[
            {"server_name": SERVER_NAME, "client_api_url": synapse.url},
            {"server_name": OTHER_SERVER_NAME, "client_api_url": synapse.url},
        ],
        admin={"token": OPERATOR},
        retention={"policies": [POLICY]},
    )
    async with installed(settings) as running:
        running.token = USER
        yield running


@pytest.fixture(scope="module")
async def synapse() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as running:
        running.register(ADMIN, ADMIN_ID)
        running.register(USER, USER_ID)
        running.register(OTHER_USER, OTHER_ID)
        running.admins = {ADMIN_ID}
        yield running


async def ask(own: Installation, method: str, path: str, *, token: str | None = OPERATOR, **arguments: Any) -> Answer:
    if "body" in arguments:
        arguments["data"] = json.dumps(arguments.pop("body")).encode()
    return await own.request(method, f"{PREFIX}{path}", token=token, **arguments)


async def found(own: Installation, query: str = "", **arguments: Any) -> list[str]:
    answer = await ask(own, "GET", f"/media{query}", **arguments)
    assert answer.status == 200, answer
    return [one["mxc"].rpartition("/")[2] for one in answer.json["media"]]


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


def filled(path: str) -> str:
    names = {"server_name": SERVER_NAME, "media_id": "abc", "policy": "old", "task_id": "1", "user_id": USER_ID}
    return path.format(**names)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
async def test_only_admins_are_let_in_and_only_operators_where_all_are_concerned(
    own: Installation, endpoint: Any
) -> None:
    path = filled(endpoint.path)
    answers = {token: await ask(own, endpoint.method, path, token=token) for token in (None, "nobodys", USER, ADMIN)}

    assert refusal(answers[None]) == (401, "M_MISSING_TOKEN")
    assert refusal(answers["nobodys"]) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(answers[USER]) == (403, "M_FORBIDDEN")
    if endpoint.operators_only:
        assert refusal(answers[ADMIN]) == (403, "M_FORBIDDEN")
        assert "admin.token" in answers[ADMIN].json["error"]
    else:
        assert answers[ADMIN].status in {200, 404}


async def test_media_are_found_by_what_is_known_of_them(own: Installation) -> None:
    picture = await own.upload(b"p" * 500, query="?filename=Holiday.png")
    text = await own.upload(b"t" * 100, content_type="text/plain")
    sha256 = await own.value("SELECT encode(sha256, 'hex') FROM blob WHERE size_bytes = 100")
    await ask(own, "POST", f"/media/{SERVER_NAME}/{text}/quarantine")
    await ask(own, "POST", f"/media/{SERVER_NAME}/{picture}/pin")

    assert set(await found(own)) == {picture, text}
    assert await found(own, "?content_type=image/") == [picture]
    assert await found(own, "?upload_name=holi") == [picture]
    assert await found(own, f"?sha256={sha256}") == [text]
    assert await found(own, "?quarantined=true") == [text]
    assert await found(own, "?pinned=true") == [picture]
    assert await found(own, "?held=true") == []
    assert await found(own, "?min_size_bytes=101&max_size_bytes=500") == [picture]
    assert await found(own, f"?user_id={USER_ID}&state=ready&remote=false") == await found(own)
    assert await found(own, "?created_before_ts=1000") == []
    assert await found(own, "?idle_since_ts=9999999999999&order_by=size_bytes") == [picture, text]
    assert await found(own, "?server_name=nowhere.example") == []


@pytest.mark.parametrize("order", ["created_ts", "size_bytes", "last_access_ts"])
async def test_pages_give_each_media_once_in_order(own: Installation, order: str) -> None:
    media = {await own.upload(secrets.token_bytes(10 + n % 4)) for n in range(13)}
    seen, values, query = list[str](), list[int](), f"?order_by={order}&limit=5"
    after = ""
    while True:
        answer = (await ask(own, "GET", f"/media{query}{after}")).json
        seen += [one["mxc"].rpartition("/")[2] for one in answer["media"]]
        values += [one[order] or 0 for one in answer["media"]]
        if answer["next"] is None:
            break
        after = f"&after={answer['next']}"

    assert set(seen) == media
    assert len(seen) == 13
    assert values == sorted(values, reverse=True)


async def test_admins_of_one_homeserver_do_not_meet_the_others_media(own: Installation) -> None:
    own.server_name = OTHER_SERVER_NAME
    theirs = await own.upload(b"theirs", token=OTHER_USER)
    own.server_name = SERVER_NAME
    ours, path = await own.upload(b"ours"), f"/media/{OTHER_SERVER_NAME}/{theirs}"

    assert await found(own, token=ADMIN) == [ours]
    assert set(await found(own)) == {ours, theirs}
    assert refusal(await ask(own, "GET", path, token=ADMIN)) == (404, "M_NOT_FOUND")
    for action in ("quarantine", "unquarantine", "hold", "pin", "protect", "restore"):
        assert (await ask(own, "POST", f"{path}/{action}", token=ADMIN)).status == 404
    assert (await ask(own, "DELETE", path, token=ADMIN)).status == 404
    synapse_path = f"/_synapse/admin/v1/media/{OTHER_SERVER_NAME}/{theirs}"
    assert (await own.get(synapse_path, token=ADMIN)).status == 404
    hide = f"/_synapse/admin/v1/media/quarantine/{OTHER_SERVER_NAME}/{theirs}"
    assert (await own.request("POST", hide, token=ADMIN)).status == 404
    there = await own.get(
        own.download_path(theirs, server_name=OTHER_SERVER_NAME), host=OTHER_SERVER_NAME, token=OTHER_USER
    )
    assert there.status == 200
    usage = await ask(own, "GET", "/usage?by=server_name", token=ADMIN)
    assert [one["group"]["server_name"] for one in usage.json["usage"]] == [SERVER_NAME]
    forbidden = await ask(own, "GET", f"/usage?server_name={OTHER_SERVER_NAME}", token=ADMIN)
    assert refusal(forbidden) == (403, "M_FORBIDDEN")


async def test_whatever_is_done_to_media_works_and_is_written_down(own: Installation) -> None:
    media_id = await own.upload(b"data")
    path = f"/media/{SERVER_NAME}/{media_id}"
    steps = [
        ("POST", "/hold", 200),
        ("DELETE", "", 200),
        ("POST", "/release", 200),
        ("POST", "/pin", 200),
        ("POST", "/unpin", 200),
        ("POST", "/protect", 200),
        ("POST", "/quarantine", 200),
        ("POST", "/unprotect", 200),
        ("POST", "/quarantine", 404),
        ("POST", "/unquarantine", 200),
        ("DELETE", "", 404),
        ("POST", "/restore", 200),
    ]
    affected = []
    for method, action, status in steps:
        answer = await ask(own, method, path + action, token=ADMIN, body={"reason": "because"})
        affected.append((answer.json["affected"], (await own.get(own.download_path(media_id))).status))
        assert (answer.status, affected[-1][1]) == (200, status), (method, action)
    audit = (await ask(own, "GET", "/audit", token=ADMIN)).json["entries"]

    assert [count for count, _ in affected] == [1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1]
    assert [one["action"] for one in reversed(audit)] == [
        "hold", "release", "pin", "unpin", "protect", "quarantine", "unprotect", "quarantine", "unquarantine", "delete",
        "restore",
    ]  # fmt: skip
    assert {one["admin"] for one in audit} == {ADMIN_ID}
    assert audit[0]["target"] == f"mxc://{SERVER_NAME}/{media_id}"
    assert audit[-1]["reason"] == "because"


async def test_the_trash_can_be_looked_into_and_unknown_media_are_404(own: Installation) -> None:
    media_id = await own.upload(b"data")
    await ask(own, "DELETE", f"/media/{SERVER_NAME}/{media_id}")
    there = await ask(own, "GET", f"/media/{SERVER_NAME}/{media_id}")

    assert there.json["state"] == "trashed"
    assert await found(own, "?state=trashed") == [media_id]
    for method, action in (("GET", ""), ("DELETE", ""), ("POST", "/pin"), ("POST", "/hold"), ("POST", "/restore")):
        assert refusal(await ask(own, method, f"/media/{SERVER_NAME}/unknown{action}")) == (404, "M_NOT_FOUND")


BAD_QUERIES = [
    "/media?usr_id=@a:b",
    "/media?limit=0",
    "/media?limit=many",
    "/media?state=lost",
    "/media?sha256=abc",
    "/media?after=nonsense",
    "/media?after=WzEsMl0=",
    "/media?min_size_bytes=99999999999999999999",
    "/media?remote=perhaps",
    "/usage?by=colour",
    "/usage?class=all",
    "/tasks/x",
    "/tasks?before_id=-1",
    f"/media/{SERVER_NAME}/a%2Fb",
]


@pytest.mark.parametrize("path", BAD_QUERIES)
async def test_parameters_that_cannot_be_are_refused_by_name(own: Installation, path: str) -> None:
    answer = await ask(own, "GET", path)

    assert refusal(answer) == (400, "M_INVALID_PARAM")
    assert answer.json["error"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, "M_NOT_JSON")),
        (b"\xff", (400, "M_NOT_JSON")),
        (b"[" * 60_000, (400, "M_NOT_JSON")),
        (b"[]", (400, "M_BAD_JSON")),
        (b'{"kind": 5}', (400, "M_BAD_JSON")),
        (b'{"kind": "fsck", "more": 1}', (400, "M_BAD_JSON")),
        (b"x" * 70_000, (413, "M_TOO_LARGE")),
        (b'{"kind": "nonsense"}', (400, "M_INVALID_PARAM")),
    ],
)
async def test_bodies_that_cannot_be_are_refused(own: Installation, body: bytes, expected: tuple[int, str]) -> None:
    assert refusal(await ask(own, "POST", "/tasks", data=body)) == expected
    assert await own.value("SELECT count(*) FROM task") == 0


async def test_usage_and_stores_tell_who_takes_up_how_much(own: Installation) -> None:
    for data in (b"same", b"same", b"other!"):
        await own.upload(data)
    by_type = await ask(own, "GET", "/usage?by=class,content_type&by=user_id")
    total = await ask(own, "GET", "/usage?class=local")
    stores = await ask(own, "GET", "/stores")

    group = {"class": "local", "content_type": "image", "user_id": USER_ID}
    assert by_type.json["usage"] == [{"group": group, "media_count": 3, "size_bytes": 14}]
    assert total.json["usage"] == [{"group": {}, "media_count": 3, "size_bytes": 14}]
    (store,) = stores.json["stores"]
    assert (store["name"], store["takes"]) == ("main", ["local", "remote", "thumbnails"])
    assert store["objects"] == [{"object_class": "content", "object_count": 2, "size_bytes": 10}]
    assert "secret" not in json.dumps(stores.json)


async def ended(own: Installation, task_id: int) -> dict[str, Any]:
    await own.repository.administration.tasks.run_waiting()
    async with asyncio.timeout(30):
        while (task := (await ask(own, "GET", f"/tasks/{task_id}")).json)["finished_ts"] is None:
            await asyncio.sleep(0.05)
    return dict(task)


async def test_retention_is_planned_looked_at_and_then_armed_or_run(own: Installation) -> None:
    await own.upload(b"data")
    early = await ask(own, "POST", "/retention/old/arm")
    too_early = await ended(own, (await ask(own, "POST", "/retention/old/run")).json["task_id"])
    planned = await ended(own, (await ask(own, "POST", "/retention/old/plan")).json["task_id"])
    armed = await ask(own, "POST", "/retention/old/arm")
    policies = (await ask(own, "GET", "/retention")).json["policies"]
    await ask(own, "POST", "/retention/old/disarm")
    ran = await ended(own, (await ask(own, "POST", "/retention/old/run")).json["task_id"])

    assert refusal(early) == (400, "M_INVALID_PARAM")
    assert (too_early["state"], planned["state"], ran["state"]) == ("failed", "done", "done")
    assert planned["result"]["count"] == ran["result"]["count"] == 1
    assert armed.status == 200
    assert (policies[0]["armed"], policies[0]["armed_by"], policies[0]["plan"]["size_bytes"]) == (True, "operator", 4)
    assert (await ask(own, "GET", "/retention")).json["policies"][0]["armed"] is False
    assert refusal(await ask(own, "POST", "/retention/unknown/plan")) == (404, "M_NOT_FOUND")


async def test_tasks_are_listed_newest_first_and_can_be_cancelled(own: Installation) -> None:
    async with own.repository.foundation.database.connection() as connection:
        await connection.execute("INSERT INTO lease (name, expires_ts) VALUES ('task 1', 9999999999999)")
    first = (await ask(own, "POST", "/tasks", body={"kind": "fsck"})).json
    cancelled = (await ask(own, "POST", f"/tasks/{first['task_id']}/cancel")).json
    second = (await ask(own, "POST", "/tasks", body={"kind": "fsck", "arguments": {"store": "main"}})).json
    listed = (await ask(own, "GET", "/tasks")).json["tasks"]
    older = (await ask(own, "GET", f"/tasks?before_id={second['task_id']}")).json["tasks"]
    done = await ended(own, second["task_id"])

    assert cancelled["state"] == "cancelled"
    assert [one["task_id"] for one in listed] == [second["task_id"], first["task_id"]]
    assert [one["task_id"] for one in older] == [first["task_id"]]
    assert done["state"] == "done"
    assert refusal(await ask(own, "GET", "/tasks/999999")) == (404, "M_NOT_FOUND")
    actions = [one["action"] for one in (await ask(own, "GET", "/audit?admin=operator")).json["entries"]]
    assert actions == ["begin_task", "cancel_task", "begin_task"]


async def test_the_operator_may_come_by_any_host_and_others_by_their_own(own: Installation) -> None:
    assert (await ask(own, "GET", "/stores", host="127.0.0.1:8000")).status == 200
    assert (await ask(own, "GET", "/media", host="127.0.0.1:8000", token=ADMIN)).status == 404


async def test_regular_work_is_told(own: Installation) -> None:
    await own.rows("INSERT INTO job_run (name, started_ts, error) VALUES ('sweep', 5, 'S3 is away')")
    jobs = {one["name"]: one for one in (await ask(own, "GET", "/jobs")).json["jobs"]}

    assert (jobs["sweep"]["started_ts"], jobs["sweep"]["error"]) == (5, "S3 is away")


async def test_the_document_is_what_is_served_and_every_reference_in_it_leads_somewhere(own: Installation) -> None:
    answer = await ask(own, "GET", "/openapi.json", token=None)
    page = await ask(own, "GET", "/docs", token=None)
    document = answer.json

    assert document == json.loads(json.dumps(openapi_document(ENDPOINTS)))
    assert document["openapi"] == "3.1.0"
    operations = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert operations == {(one.method, PREFIX + one.path) for one in ENDPOINTS}
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(ids) == len(set(ids))
    references = {part.partition('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert references <= set(document["components"]["schemas"])
    assert page.headers["Content-Type"].startswith("text/html")
    assert all(path.encode() in page.body for _, path in operations)
    assert b"<script" not in page.body


async def test_a_whole_server_can_be_hidden_and_shown_again(own: Installation) -> None:
    media_id = await own.upload(b"data")
    await own.rows("UPDATE media SET remote = true, server_name = 'bad.example', uploaded_by = NULL")
    path = own.download_path(media_id, server_name="bad.example")
    before = await own.get(path)
    hidden = await ask(own, "POST", "/quarantine/servers/bad.example", body={"reason": "spam"})
    again = await ask(own, "POST", "/quarantine/servers/bad.example")
    gone = await own.get(path)
    listed = (await ask(own, "GET", "/quarantine/servers", token=ADMIN)).json["servers"]
    ours = await ask(own, "POST", f"/quarantine/servers/{OTHER_SERVER_NAME}")
    await ask(own, "DELETE", "/quarantine/servers/bad.example")

    assert (before.status, gone.status, (await own.get(path)).status) == (200, 404, 200)
    assert (hidden.json["affected"], again.json["affected"]) == (1, 0)
    assert [(one["server_name"], one["reason"], one["quarantined_by"]) for one in listed] == [
        ("bad.example", "spam", "operator")
    ]
    assert refusal(ours) == (400, "M_INVALID_PARAM")


async def test_a_users_uploads_are_hidden_together(own: Installation) -> None:
    media_id = await own.upload(b"data")
    answer = await ask(own, "POST", f"/users/{USER_ID}/quarantine", token=ADMIN)

    assert answer.json == {"affected": 1}
    assert (await own.get(own.download_path(media_id))).status == 404
