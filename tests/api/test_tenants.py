"""Homeservers that share a repository and need not trust one another: what each may reach, hide, keep and learn."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mediarepo.db.media import MediaTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.mxc import Mxc
from tests.support.tenants import REMOTE, A, B, Tenants, two_tenants

BYPASS = "?admin_unsafely_bypass_quarantine=true"
OPERATOR = ""


@pytest.fixture
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    async with two_tenants(postgres, s3) as running:
        yield running


async def both(tenants: Tenants, who: str, action: str, media: str, api: str) -> int:
    """Quarantine, or end it, through one of the two APIs."""
    if api == "synapse":
        return (await tenants.synapse(who, "POST", f"/media/{action}/{media}")).status
    return (await tenants.do(who, action, media)).status


async def test_an_admin_sees_past_quarantine_only_at_home_and_of_other_servers(tenants: Tenants) -> None:
    own, neighbours, remote = await tenants.upload(A), await tenants.upload(B), await tenants.remote()
    await tenants.do(A, "quarantine", own)
    await tenants.do(B, "quarantine", neighbours)
    await tenants.do(A, "quarantine", remote)
    statuses = [await tenants.status(one, at=A, query=BYPASS, admin=True) for one in (own, neighbours, remote)]

    assert statuses == [200, 404, 200]
    assert await tenants.status(neighbours, at=B, query=BYPASS, admin=True) == 200
    assert await tenants.status(neighbours, at=A, query=BYPASS) == 400


async def test_changes_of_quarantine_are_told_to_those_whom_they_concern(tenants: Tenants) -> None:
    own, neighbours, remote, other = (
        await tenants.upload(A), await tenants.upload(B), await tenants.remote(), await tenants.remote(),
    )  # fmt: skip
    await tenants.do(A, "quarantine", own)
    await tenants.do(B, "quarantine", neighbours)
    await tenants.do(A, "quarantine", remote)
    await tenants.do(B, "quarantine", other)
    told = {}
    for who in (A, B, OPERATOR):
        answer = await tenants.synapse(who, "GET", "/media/quarantine_changes")
        told[who] = [f"{one['origin']}/{one['media_id']}" for one in answer.json["changes"]]

    assert told == {A: [own, remote], B: [neighbours, other], OPERATOR: [own, neighbours, remote, other]}


@pytest.mark.parametrize("api", ["synapse", "ours"])
@pytest.mark.parametrize("hider", [B, OPERATOR])
async def test_showing_a_copy_shows_nothing_that_others_hid(tenants: Tenants, api: str, hider: str) -> None:
    data = secrets.token_bytes(64)
    hidden = await tenants.upload(B, data)
    await tenants.do(hider, "quarantine", hidden)
    copy = await tenants.upload(A, data)
    await both(tenants, A, "quarantine", copy, api)
    before = await tenants.seen(copy)
    lifted = await both(tenants, A, "unquarantine", copy, api)

    assert before == (404, 404)
    assert lifted == 200
    assert await tenants.seen(hidden) == (404, 404)
    assert await tenants.seen(copy) == ((404, 404) if hider == OPERATOR else (200, 200))
    assert [one["action"] for one in await tenants.audit(B)] == ["quarantine"]


@pytest.mark.parametrize("api", ["synapse", "ours"])
async def test_hiding_a_copy_leaves_a_neighbours_own_media_visible_to_all(tenants: Tenants, api: str) -> None:
    data = secrets.token_bytes(64)
    victim, copy, remote = await tenants.upload(B, data), await tenants.upload(A, data), await tenants.remote(data)
    await both(tenants, A, "quarantine", copy, api)
    later = await tenants.upload(A, data)

    assert await tenants.seen(victim) == (200, 200)
    assert await tenants.seen(copy) == (404, 404)
    assert await tenants.seen(later) == (404, 404)
    assert await tenants.seen(remote) == (404, 200)


async def test_what_the_operator_hides_stays_hidden_whatever_a_homeserver_lifts(tenants: Tenants) -> None:
    remote, own = await tenants.remote(), await tenants.upload(A)
    for media in (remote, own):
        await tenants.do(OPERATOR, "quarantine", media)
        refused = await tenants.do(A, "unquarantine", media)
        assert (refused.status, refused.json["errcode"]) == (403, "M_FORBIDDEN")
        assert await tenants.seen(media) == (404, 404)
        await tenants.do(A, "quarantine", media)
        lifted = await tenants.do(A, "unquarantine", media)
        assert (lifted.status, lifted.json) == (200, {"affected": 0, "left_out": {"still_in_force": 1}})
        assert await tenants.seen(media) == (404, 404)


async def test_the_operator_lifts_his_own_first_and_then_what_homeservers_set(tenants: Tenants) -> None:
    media = await tenants.upload(A)
    await tenants.do(A, "quarantine", media)
    await tenants.do(OPERATOR, "quarantine", media)
    first = await tenants.do(OPERATOR, "unquarantine", media)
    between = await tenants.seen(media)
    second = await tenants.do(OPERATOR, "unquarantine", media)

    assert first.json == {"affected": 0, "left_out": {"still_in_force": 1}}
    assert between == (404, 404)
    assert second.json == {"affected": 1}
    assert await tenants.seen(media) == (200, 200)


@pytest.mark.parametrize(("put", "lift"), [("hold", "release"), ("pin", "unpin"), ("protect", "unprotect")])
async def test_what_the_operator_set_only_the_operator_lifts(tenants: Tenants, put: str, lift: str) -> None:
    media = await tenants.upload(A)
    await tenants.do(OPERATOR, put, media)
    alone = await tenants.do(A, lift, media)
    await tenants.do(A, put, media)
    beside = await tenants.do(A, lift, media)
    rest = await tenants.own.rows("SELECT owner FROM media_mark")
    await tenants.do(A, put, media)
    own = await tenants.do(OPERATOR, lift, media)
    theirs = await tenants.do(OPERATOR, lift, media)

    assert (alone.status, alone.json["errcode"]) == (403, "M_FORBIDDEN")
    assert (beside.status, beside.json) == (200, {"affected": 1, "left_out": {"still_in_force": 1}})
    assert [row["owner"] for row in rest] == [""]
    assert (own.json, theirs.json) == ({"affected": 1, "left_out": {"still_in_force": 1}}, {"affected": 1})


async def test_media_under_the_operators_hold_outlive_their_homeservers_admin(tenants: Tenants) -> None:
    media = await tenants.upload(A)
    await tenants.do(OPERATOR, "hold", media)
    released = await tenants.do(A, "release", media)
    deleted = await tenants.ask(A, "DELETE", f"/media/{media}", {})
    await tenants.synapse(A, "DELETE", f"/media/{media}")
    await tenants.own.repository.administration.deletion.empty_trash()

    assert released.status == 403
    assert deleted.json == {"affected": 0, "left_out": {"held": 1}}
    assert await tenants.seen(media) == (200, 200)


async def test_what_the_operator_deleted_only_the_operator_restores(tenants: Tenants) -> None:
    theirs, own = await tenants.upload(A), await tenants.upload(A)
    await tenants.ask(OPERATOR, "DELETE", f"/media/{theirs}", {})
    await tenants.ask(A, "DELETE", f"/media/{own}", {})

    assert (await tenants.do(A, "restore", theirs)).status == 403
    assert (await tenants.do(A, "restore", own)).json == {"affected": 1}
    assert (await tenants.do(OPERATOR, "restore", theirs)).json == {"affected": 1}
    assert await tenants.seen(theirs) == (200, 200)


async def test_protection_binds_homeservers_and_only_the_operators_own_binds_the_operator(tenants: Tenants) -> None:
    media, exempt, data = await tenants.upload(A), await tenants.upload(A), secrets.token_bytes(64)
    await tenants.do(A, "protect", media)
    by_themselves = await tenants.do(A, "quarantine", media)
    by_operator = await tenants.do(OPERATOR, "quarantine", media)
    await tenants.do(OPERATOR, "protect", exempt)
    by_nobody = await tenants.do(OPERATOR, "quarantine", exempt)
    copy, protected = await tenants.upload(A, data), await tenants.upload(A, data)
    await tenants.do(A, "protect", protected)
    await tenants.do(A, "quarantine", copy)
    spared = await tenants.seen(protected)
    await tenants.do(OPERATOR, "quarantine", copy)

    assert by_themselves.json == {"affected": 0, "left_out": {"protected": 1}}
    assert by_operator.json == {"affected": 1}
    assert await tenants.seen(media) == (404, 404)
    assert by_nobody.json == {"affected": 0, "left_out": {"protected": 1}}
    assert await tenants.seen(exempt) == (200, 200)
    assert spared == (200, 200)
    assert await tenants.seen(protected) == (404, 404)


async def test_counts_tell_nothing_of_a_neighbour(tenants: Tenants) -> None:
    data = secrets.token_bytes(64)
    await tenants.upload(B, data)
    copy = await tenants.upload(A, data)
    hidden, shown = await tenants.do(A, "quarantine", copy), await tenants.do(A, "unquarantine", copy)
    by_operator = await tenants.do(OPERATOR, "quarantine", copy)

    assert (hidden.json, shown.json, by_operator.json) == ({"affected": 1}, {"affected": 1}, {"affected": 2})


async def test_what_all_share_only_the_operator_removes(tenants: Tenants) -> None:
    remote, pinned = await tenants.remote(), await tenants.remote()
    await tenants.do(OPERATOR, "pin", pinned)
    unpinned = await tenants.do(A, "unpin", pinned)
    purged = await tenants.synapse(A, "POST", "/purge_media_cache?before_ts=9999999999999")
    deleted = await tenants.ask(A, "DELETE", f"/media/{remote}", {})
    by_operator = await tenants.synapse(OPERATOR, "POST", "/purge_media_cache?before_ts=9999999999999")

    assert [unpinned.status, purged.status, deleted.status] == [403, 403, 403]
    assert by_operator.json == {"deleted": 1}
    assert await tenants.seen(pinned) == (200, 200)


async def test_a_tombstone_stays_whoever_shows_the_media_again(tenants: Tenants) -> None:
    remote = await tenants.remote()
    await tenants.ask(OPERATOR, "DELETE", f"/media/{remote}", {})
    await tenants.own.repository.administration.deletion.empty_trash()
    for who in (A, OPERATOR):
        await tenants.do(who, "quarantine", remote)
        await tenants.do(who, "unquarantine", remote)

    assert await tenants.own.value("SELECT state FROM media WHERE server_name = $1", REMOTE) == "tombstone"


async def test_a_homeserver_hides_in_advance_for_itself_alone(tenants: Tenants) -> None:
    hidden = await tenants.do(A, "quarantine", f"{REMOTE}/later")
    own = MediaTable(tenants.own.repository.foundation.database)
    seen = [await own.get(Mxc(REMOTE, "later"), who) for who in (A, B)]

    assert hidden.json == {"affected": 1}
    assert [media is not None and media.hidden for media in seen] == [True, False]


@pytest.mark.parametrize("readable", [True, False])
async def test_a_claimed_hash_is_verified_when_its_media_are_hidden(tenants: Tenants, *, readable: bool) -> None:
    data = secrets.token_bytes(64)
    claimed = await tenants.upload(A, data)
    await tenants.own.rows("UPDATE blob SET sha256_state = 'claimed', ownership = 'borrowed'")
    copy = (await tenants.upload(A, secrets.token_bytes(64))).partition("/")[2]
    await tenants.own.rows("UPDATE media SET blob_id = (SELECT min(blob_id) FROM blob) WHERE media_id = $1", copy)
    key = await tenants.own.value("SELECT object_key FROM blob ORDER BY blob_id LIMIT 1")
    if not readable:
        await tenants.own.rows("UPDATE blob SET store = 'gone' WHERE object_key = $1", key)
    hidden = await tenants.do(A, "quarantine", claimed)
    if not readable:
        await tenants.own.rows("UPDATE blob SET store = 'main' WHERE object_key = $1", key)
    later = await tenants.upload(A, data)

    assert hidden.json == {"affected": 2}
    assert [await tenants.seen(one) for one in (claimed, f"{A}/{copy}", later)] == [(404, 404)] * 3


async def test_a_claim_that_is_wrong_hides_nothing_for_long_and_saves_nothing(tenants: Tenants) -> None:
    bad, other = secrets.token_bytes(64), secrets.token_bytes(64)
    hidden, lying = await tenants.upload(A, bad), await tenants.upload(A, other)
    await tenants.own.rows(
        """UPDATE blob SET sha256 = $2, sha256_state = 'claimed', ownership = 'borrowed' WHERE sha256 = $1""",
        hashlib.sha256(bad).digest(),
        hashlib.sha256(b"harmless").digest(),
    )
    real = await tenants.upload(A, bad)
    await tenants.do(A, "quarantine", real)

    assert await tenants.seen(hidden) == (404, 404)
    assert await tenants.seen(lying) == (200, 200)


async def test_homeservers_that_trust_one_another_share_what_they_hide_by_content(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with two_tenants(postgres, s3, quarantine={"shared": [[A, B]]}) as trusting:
        data = secrets.token_bytes(64)
        theirs, own = await trusting.upload(B, data), await trusting.upload(A, data)
        await trusting.do(A, "quarantine", own)
        shared = await trusting.seen(theirs)
        refused = await trusting.do(B, "unquarantine", theirs)
        await trusting.do(A, "unquarantine", own)

        assert shared == (404, 404)
        assert refused.status == 403
        assert await trusting.seen(theirs) == (200, 200)


async def test_every_deed_stands_in_the_audit_of_each_homeserver_it_concerns(tenants: Tenants) -> None:
    data = secrets.token_bytes(64)
    at_a, at_b, remote = await tenants.upload(A, data), await tenants.upload(B, data), await tenants.remote()
    await tenants.do(OPERATOR, "quarantine", at_a, "report 12")
    await tenants.do(OPERATOR, "hold", remote, "court order")
    await tenants.do(A, "pin", remote, "sticker")

    def told(entries: list[dict[str, Any]]) -> list[tuple[object, ...]]:
        fields = ("admin", "homeserver", "action", "target", "reason", "affected", "client_address")
        return [tuple(one[field] for field in fields) for one in entries]

    here = "127.0.0.1"
    held = ("hold", f"mxc://{remote}", "court order", 1, here)
    assert told(await tenants.audit(A)) == [
        ("operator", A, "quarantine", f"mxc://{at_a}", "report 12", 1, here),
        ("operator", A, *held),
        (f"@admin:{A}", A, "pin", f"mxc://{remote}", "sticker", 1, here),
    ]
    assert told(await tenants.audit(B)) == [
        ("operator", B, "quarantine", f"mxc://{at_b}", "report 12", 1, here),
        ("operator", B, *held),
    ]


async def test_a_neighbours_user_and_media_are_out_of_reach(tenants: Tenants) -> None:
    media = await tenants.upload(B)
    user = await tenants.ask(A, "POST", f"/users/@user:{B}/quarantine", {})
    synapse = await tenants.synapse(A, "POST", f"/user/@user:{B}/media/quarantine")

    assert (user.status, synapse.status) == (403, 403)
    assert await tenants.seen(media) == (200, 200)
    assert await tenants.audit(B) == []


async def test_media_hidden_or_not_are_found_with_one_question(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, hidden, unknown = await tenants.upload(A), await tenants.upload(A), f"{A}/unknown"
    await tenants.do(A, "quarantine", hidden)
    database, asked = tenants.own.repository.foundation.database, list[str]()
    get = database.get

    async def counted(query: str, *arguments: object) -> Any:
        asked.append(query)
        return await get(query, *arguments)

    monkeypatch.setattr(database, "get", counted)
    statuses = [await tenants.status(one, at=B) for one in (seen, hidden, unknown)]

    assert statuses == [200, 404, 404]
    assert len(asked) == 3
