"""Every act stands in the audit of each homeserver that it concerns: who, what, why, and how many of its media."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mediarepo.cli.administration import operator
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.import_verification import ImportedContentTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.marks import AdminAction
from mediarepo.model.mxc import Mxc
from mediarepo.services.retention import RetentionTally
from tests.pictures.drawn import corners, encoded
from tests.support.tenants import A, B, Tenants, two_tenants, user_of

OPERATOR = ""
POLICIES = [
    {"name": "local", "what": "local", "max_age_ms": 1, "keep_avatars": False},
    {"name": "of-b", "what": "local", "max_age_ms": 1, "keep_avatars": False, "server_names": [B]},
    {"name": "remote", "what": "remote", "max_age_ms": 1},
    {"name": "thumbnails", "what": "thumbnails", "max_age_ms": 1},
]


@pytest.fixture
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    async with two_tenants(postgres, s3, retention={"policies": POLICIES}) as running:
        yield running


def mxc_of(media: str) -> Mxc:
    return Mxc(*media.split("/"))


async def entries(tenants: Tenants, who: str) -> list[tuple[str, str, str, int]]:
    return [tuple(one[name] for name in ("admin", "action", "target", "affected")) for one in await tenants.audit(who)]


async def fill(tenants: Tenants) -> None:
    """Keep two media of A, one of B, one of another server, all of them old."""
    await tenants.upload(A), await tenants.upload(A), await tenants.upload(B), await tenants.remote()
    await tenants.own.rows("UPDATE media SET created_ts = 1")


async def carry_out(tenants: Tenants, name: str) -> None:
    retention = tenants.own.repository.administration.retention
    policy = retention.policy(name)
    await retention.plan(policy, RetentionTally())
    await retention.run(policy, "operator", RetentionTally())


async def test_what_retention_removes_stands_in_each_homeservers_audit(tenants: Tenants) -> None:
    await fill(tenants)
    await carry_out(tenants, "local")
    await carry_out(tenants, "remote")

    assert await entries(tenants, A) == [("operator", "retention", "local", 2), ("operator", "retention", "remote", 1)]
    assert await entries(tenants, B) == [("operator", "retention", "local", 1), ("operator", "retention", "remote", 1)]


async def test_whose_thumbnails_go_is_counted_for_each(tenants: Tenants) -> None:
    for server_name, size in ((A, 40), (A, 44), (B, 48)):
        media = await tenants.upload(server_name, encoded(corners(size, size), "PNG"))
        path = f"/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&method=crop"
        assert (await tenants.own.get(path, token=user_of(server_name), host=server_name)).status == 200
    await tenants.own.rows("UPDATE blob SET created_ts = 1")
    await tenants.own.rows("UPDATE media SET created_ts = 1")
    await carry_out(tenants, "thumbnails")

    assert await entries(tenants, A) == [("operator", "retention", "thumbnails", 2)]
    assert await entries(tenants, B) == [("operator", "retention", "thumbnails", 1)]


async def test_arming_concerns_those_whose_media_may_go(tenants: Tenants) -> None:
    retention = tenants.own.repository.administration.retention
    for name in ("local", "of-b"):
        await retention.plan(retention.policy(name), RetentionTally())
        await tenants.ask(OPERATOR, "POST", f"/retention/{name}/arm", {})
        await tenants.ask(OPERATOR, "POST", f"/retention/{name}/disarm", {})

    targets = {who: [one["target"] for one in await tenants.audit(who)] for who in (A, B)}
    assert targets == {A: ["local", "local"], B: ["local", "local", "of-b", "of-b"]}
    assert all(one["client_address"] for one in await tenants.audit(B))


async def test_emptying_the_trash_is_written_down(tenants: Tenants) -> None:
    for server_name in (A, A, B):
        await tenants.ask(server_name, "DELETE", f"/media/{await tenants.upload(server_name)}", {})
    await tenants.own.rows("UPDATE media SET trashed_ts = 1")
    await tenants.own.repository.administration.deletion.empty_trash()

    assert (await entries(tenants, A))[-1] == ("mediarepo", "empty_trash", "trash", 2)
    assert (await entries(tenants, B))[-1] == ("mediarepo", "empty_trash", "trash", 1)


async def test_lists_of_hashes_stand_where_they_hide_something_and_name_no_hash_there(tenants: Tenants) -> None:
    data = secrets.token_bytes(64)
    own, remote = await tenants.upload(B, data), await tenants.remote(secrets.token_bytes(65))
    known = [
        bytes.fromhex((await tenants.ask(OPERATOR, "GET", f"/media/{one}")).json["sha256"]) for one in (own, remote)
    ]
    quarantine, admin = tenants.own.repository.administration.quarantine, operator(tenants.own.settings)
    hashes = [*known, hashlib.sha256(b"elsewhere").digest()]
    await quarantine.hide_hashes(hashes, admin, reason="a list")
    await quarantine.show_hashes(hashes, admin)

    hidden, shown = "quarantine_hash", "unquarantine_hash"
    acts = {who: [one[1:] for one in await entries(tenants, who)] for who in (A, B)}
    for_a, for_b = (f"mxc://{remote}", 1), (f"mxc://{own}", 1)
    assert acts[A] == [(hidden, *for_a), (shown, *for_a)]
    assert sorted(acts[B]) == sorted([(hidden, *for_a), (hidden, *for_b), (shown, *for_a), (shown, *for_b)])
    everything = await tenants.audit(OPERATOR)
    assert sum(one["target"] == hashes[2].hex() for one in everything) == 2
    assert {one["reason"] for one in everything if one["action"] == hidden} == {"a list"}


async def test_what_an_import_takes_back_is_written_down_and_what_is_held_stays(tenants: Tenants) -> None:
    media = [await tenants.upload(A), await tenants.upload(A), await tenants.upload(B)]
    await tenants.do(A, "hold", media[1])
    own = tenants.own
    await own.rows("INSERT INTO import_source (name, kind, created_ts) VALUES ('old', 'synapse', 1)")
    await own.rows("UPDATE media SET import_source_id = (SELECT source_id FROM import_source)")
    await own.rows(
        """INSERT INTO import_item (source_id, server_name, media_id, kind, state, fingerprint, run_id, seen_run_id,
               updated_ts)
           SELECT import_source_id, server_name, media_id, 'local', 'committed', '', 1, 1, 1 FROM media"""
    )
    act = AdminAction(by="command line (root)", owner=OPERATOR, action="undo_import", at=(A, B))
    source_id = await own.value("SELECT source_id FROM import_source")
    removed = await ImportedContentTable(own.repository.foundation.database).undo(source_id, "old", None, act)

    assert removed == 2
    assert [await tenants.seen(one) for one in media] == [(404, 404), (200, 200), (404, 404)]
    assert (await entries(tenants, A))[-1] == ("command line (root)", "undo_import", "old", 1)
    assert (await entries(tenants, B))[-1] == ("command line (root)", "undo_import", "old", 1)


async def test_what_is_gone_from_a_source_stays_while_it_is_held_and_is_written_down(tenants: Tenants) -> None:
    media = mxc_of(await tenants.upload(A))
    act = AdminAction(by="command line (root)", owner=OPERATOR, action="prune_import", at=(A, B))
    table = DeletionTable(tenants.own.repository.foundation.database)
    await tenants.do(A, "hold", f"{media.server_name}/{media.media_id}")
    while_held = await table.delete(media, act)
    await tenants.do(A, "release", f"{media.server_name}/{media.media_id}")

    assert (while_held, await table.delete(media, act)) == (False, True)
    assert (await entries(tenants, A))[-1] == ("command line (root)", "prune_import", str(media), 1)
    assert await entries(tenants, B) == []


async def test_media_that_are_held_while_the_trash_is_emptied_stay_or_are_gone_for_good(tenants: Tenants) -> None:
    deletion = tenants.own.repository.administration.deletion
    outcomes: list[Any] = []
    for _ in range(25):
        media = await tenants.upload(A)
        await tenants.ask(A, "DELETE", f"/media/{media}", {})
        await tenants.own.rows("UPDATE media SET trashed_ts = 1 WHERE state = 'trashed'")
        held, _ = await asyncio.gather(tenants.do(A, "hold", media), deletion.empty_trash())
        restored = await tenants.do(A, "restore", media)
        outcomes.append((held.json.get("affected", 0), restored.json.get("affected", 0)))

    assert set(outcomes) <= {(1, 1), (0, 0)}
