"""What an admin of one homeserver tries against the others of a repository, besides the plain calls."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from mediarepo.config.homeservers import AppserviceConfig
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.tenants import REMOTE, A, B, Tenants, two_tenants, user_of

OPERATOR = ""


@pytest.fixture
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    async with two_tenants(postgres, s3) as running:
        yield running


async def test_what_the_operator_deletes_too_only_the_operator_restores(tenants: Tenants) -> None:
    media = await tenants.upload(A)
    await tenants.ask(A, "DELETE", f"/media/{media}", {})
    by_operator = await tenants.ask(OPERATOR, "DELETE", f"/media/{media}", {})
    again = await tenants.ask(OPERATOR, "DELETE", f"/media/{media}", {})
    restored = await tenants.do(A, "restore", media)

    assert (by_operator.json, again.json) == ({"affected": 1}, {"affected": 0})
    assert restored.status == 403
    assert await tenants.seen(media) == (404, 404)
    assert [one["admin"] for one in await tenants.audit(A)] == [f"@admin:{A}", "operator"]
    assert (await tenants.do(OPERATOR, "restore", media)).json == {"affected": 1}


async def changes(tenants: Tenants, who: str, start: int = 0) -> dict[str, Any]:
    answer = await tenants.synapse(who, "GET", f"/media/quarantine_changes?from={start}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


async def test_changes_are_numbered_for_each_homeserver(tenants: Tenants) -> None:
    own, remote = [await tenants.upload(A) for _ in range(2)], await tenants.remote()
    before = []
    for media in own:
        before.append((await changes(tenants, A))["next_batch"])
        await asyncio.gather(*[tenants.do(B, "quarantine", await tenants.upload(B)) for _ in range(3)])
        await tenants.do(A, "quarantine", media)
    await tenants.do(B, "quarantine", remote)
    for_a = await changes(tenants, A)
    await tenants.do(OPERATOR, "quarantine", remote)
    found = {who: await changes(tenants, who) for who in (A, B, OPERATOR)}
    again = await changes(tenants, A, start=1)

    assert before == [0, 1]
    assert (for_a["next_batch"], [one["media_id"] for one in for_a["changes"]]) == (2, [one[7:] for one in own])
    assert {who: one["next_batch"] for who, one in found.items()} == {A: 3, B: 8, OPERATOR: 10}
    assert [one["media_id"] for one in again["changes"]] == [own[1][7:], remote.partition("/")[2]]


async def test_names_of_audit_entries_tell_nothing_of_a_neighbour(tenants: Tenants) -> None:
    for who in (A, B, B, A):
        await tenants.do(who, "quarantine", await tenants.upload(who))
    for_a, for_b = await tenants.audit(A), await tenants.audit(B)
    older = await tenants.ask(A, "GET", f"/audit?before_id={for_a[1]['entry_id']}")
    refused = [await tenants.ask(A, "GET", f"/audit?before_id={one}") for one in (for_b[0]["entry_id"], 3, "x")]
    by_operator = await tenants.ask(OPERATOR, "GET", f"/audit?before_id={for_b[1]['entry_id']}")

    assert all(len(one["entry_id"]) == 36 for one in for_a + for_b)
    assert older.json["entries"] == [for_a[0]]
    assert [one.status for one in refused] == [400, 400, 400]
    assert by_operator.json["entries"] == [for_b[0], for_a[0]]


async def test_numbers_of_changes_tell_nothing_of_a_neighbour(tenants: Tenants) -> None:
    own = await tenants.upload(A)
    await tenants.do(A, "quarantine", own)
    last = (await tenants.synapse(A, "GET", "/media/quarantine_changes")).json["next_batch"]
    for _ in range(3):
        await tenants.do(B, "quarantine", await tenants.upload(B))
    paths = [f"/media/quarantine_changes?from={number}" for number in range(last, last + 4)]

    assert [(await tenants.synapse(A, "GET", path)).status for path in paths] == [200, 400, 400, 400]
    assert (await tenants.synapse(OPERATOR, "GET", paths[-1])).status == 200


@pytest.mark.parametrize("hidden_as", [REMOTE, REMOTE.upper(), f"{REMOTE}."])
async def test_a_hidden_server_stays_hidden_however_it_is_spelled(tenants: Tenants, hidden_as: str) -> None:
    media_id = (await tenants.remote()).partition("/")[2]
    await tenants.ask(OPERATOR, "POST", f"/quarantine/servers/{hidden_as}", {})
    seen = {}
    spelled = (REMOTE, REMOTE.upper(), f"{REMOTE}.", f"{REMOTE}:8448", f"{REMOTE.title()}.:8448", f"not-{REMOTE}")
    for name in spelled:
        await tenants.own.rows("UPDATE media SET server_name = $1 WHERE media_id = $2", name, media_id)
        seen[name] = await tenants.seen(f"{name}/{media_id}")
    shown = await tenants.ask(OPERATOR, "DELETE", f"/quarantine/servers/{hidden_as}", {})
    await tenants.own.rows("UPDATE media SET server_name = $1 WHERE media_id = $2", REMOTE, media_id)

    assert seen == {name: (200, 200) if name.startswith("not-") else (404, 404) for name in spelled}
    assert shown.json == {"affected": 1}
    assert await tenants.seen(f"{REMOTE}/{media_id}") == (200, 200)


@pytest.mark.parametrize("hider", [OPERATOR, A])
@pytest.mark.parametrize("hidden_as", [REMOTE, REMOTE.upper(), f"{REMOTE}.", f"{REMOTE}:8448"])
async def test_media_hidden_by_their_address_are_hidden_however_their_server_is_spelled(
    tenants: Tenants, hider: str, hidden_as: str
) -> None:
    seen, port = {}, hidden_as.partition(":")[2]
    spelled = (REMOTE, REMOTE.upper(), f"{REMOTE}.", f"{REMOTE}:8448", f"{REMOTE.title()}.:8448", f"not-{REMOTE}")
    media_id = (await tenants.remote(b"xy")).partition("/")[2]  # too short to be hidden by its hash
    hidden = await tenants.do(hider, "quarantine", f"{hidden_as}/{media_id}")
    for name in spelled:
        await tenants.own.rows("UPDATE media SET server_name = $1 WHERE media_id = $2", name, media_id)
        seen[name] = await tenants.seen(f"{name}/{media_id}")
    shown = await tenants.do(hider, "unquarantine", f"{hidden_as.upper()}/{media_id}")
    await tenants.own.rows("UPDATE media SET server_name = $1 WHERE media_id = $2", REMOTE, media_id)

    same = {name for name in spelled if not name.startswith("not-") and name.partition(":")[2] == port}
    assert (hidden.json, shown.status) == ({"affected": 1}, 200)
    assert seen == {name: (404, 404 if hider == OPERATOR else 200) if name in same else (200, 200) for name in spelled}
    assert await tenants.seen(f"{REMOTE}/{media_id}") == (200, 200)


async def test_protected_media_are_not_hidden_by_another_spelling_of_their_server(tenants: Tenants) -> None:
    media = await tenants.remote(b"xy")
    await tenants.do(OPERATOR, "protect", media)
    hidden = await tenants.do(A, "quarantine", media.replace(REMOTE, REMOTE.upper()))

    assert hidden.json == {"affected": 0, "left_out": {"protected": 1}}
    assert await tenants.seen(media) == (200, 200)


@pytest.mark.parametrize("value", [10**30, -(10**30), 1e400, "9" * 400])
async def test_a_place_in_a_list_that_no_page_gave_is_refused(tenants: Tenants, value: object) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps([value, A, "x"]).encode()).decode()
    answer = await tenants.ask(A, "GET", f"/media?after={cursor}")

    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")


async def test_a_neighbours_media_are_unknown_in_lists_though_they_were_fetched_as_another_servers(
    tenants: Tenants,
) -> None:
    media = await tenants.upload(B)
    await tenants.own.rows("UPDATE media SET remote = true WHERE server_name = $1", B)
    remote = await tenants.remote()
    found = {who: (await tenants.ask(who, "GET", "/media")).json["media"] for who in (A, OPERATOR)}

    assert {one["mxc"] for one in found[A]} == {f"mxc://{remote}"}
    assert {one["mxc"] for one in found[OPERATOR]} == {f"mxc://{remote}", f"mxc://{media}"}


@pytest.mark.parametrize("uploader", [f"@user:{A}", "@somebody:far.test"])
async def test_who_uploaded_a_neighbours_media_tells_nothing_and_uses_up_nothing(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, uploader: str
) -> None:
    rules = [{"max_media": 1, "max_media_per_period": 1, "period_ms": 86_400_000}]
    async with two_tenants(postgres, s3, quotas={"rules": rules}) as limited:
        media = await limited.upload(B)
        await limited.own.rows("UPDATE media SET uploaded_by = $1 WHERE server_name = $2", uploader, B)
        hidden = await limited.ask(A, "POST", f"/users/{uploader}/quarantine", {})
        path = "/_matrix/client/unstable/org.matrix.msc4034/media/usage"
        usage = await limited.own.get(path, token=user_of(A), host=A)

        assert hidden.json == {"affected": 0}
        assert usage.json["org.matrix.msc4034.storage.files"] == 0
        assert await limited.upload(A, secrets.token_bytes(64))
        assert await limited.seen(media) == (200, 200)


async def test_a_neighbour_spelled_with_a_last_dot_is_the_neighbour(tenants: Tenants) -> None:
    media_id = (await tenants.upload(B)).partition("/")[2]
    answers = [await tenants.do(A, action, f"{B}./{media_id}") for action in ("quarantine", "unquarantine", "hold")]

    assert [answer.status for answer in answers] == [404, 404, 404]
    assert tenants.own.repository.tenants.is_ours(f"{B}.:8448")


@pytest.mark.parametrize("name", ["bridge", "guest"])
async def test_application_services_and_guests_never_become_admins_by_their_name(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, name: str
) -> None:
    user_id = f"@{name}:{A}"
    async with two_tenants(postgres, s3, admin={"token": "operators-token", "user_ids": [user_id]}) as tenants:
        bridge = AppserviceConfig(id="bridge", as_token=SecretStr("bridges-token"), sender=f"@bridge:{A}")
        tenants.own.settings.homeservers[0].appservices.append(bridge)
        token = "bridges-token" if name == "bridge" else f"guest-{A}"
        answers = [
            await tenants.own.get("/_mediarepo/admin/v1/media", token=token, host=A),
            await tenants.own.get(f"/_synapse/admin/v1/users/@user:{A}/media", token=token, host=A),
        ]

    assert [(one.status, one.json["errcode"]) for one in answers] == [(403, "M_FORBIDDEN")] * 2
