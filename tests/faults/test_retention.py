import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from mediarepo.app.foundation import now_ms
from mediarepo.db.database import LeaseLostError, fenced
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.errors import InvalidParamError
from mediarepo.model.marks import AdminAction
from mediarepo.model.mxc import Mxc
from mediarepo.model.retention import RetentionPlan
from mediarepo.services.retention import Retention, RetentionTally
from tests.pictures.drawn import corners, encoded
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.installation import OTHER_SERVER_NAME, SERVER_NAME, Installation, installed, settings_for

DAY = 24 * 3_600_000
USER, OTHER = f"@user_1:{SERVER_NAME}", f"@userx1:{SERVER_NAME}"
OLD = {"name": "old", "what": "local", "max_age_ms": 10 * DAY, "keep_avatars": False}
IDLE_REMOTE = {"name": "idle", "what": "remote", "max_idle_ms": 10 * DAY}


@pytest.fixture
def running(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> Any:
    @asynccontextmanager
    async def start(*policies: dict[str, Any], **overrides: Any) -> AsyncIterator[Installation]:
        retention = {"policies": list(policies), "interval_ms": 3_600_000}
        async with installed(settings_for(postgres, s3, retention=retention, **overrides)) as own:
            yield own

    return start


DEED = AdminAction(by="@admin:x", owner="", action="retention")


async def media(own: Installation, days: int, *, data: bytes | None = None, **columns: object) -> str:
    """Upload something that was made, and last asked for, so many days ago."""
    media_id = await own.upload(secrets.token_bytes(100) if data is None else data)
    facts = {"created_ts": now_ms() - days * DAY, **columns}
    for name, value in facts.items():
        await own.rows(f"UPDATE media SET {name} = $2 WHERE media_id = $1", media_id, value)
    return media_id


async def remote(own: Installation, days: int, *, size: int = 100, **columns: object) -> str:
    facts = {"remote": True, "server_name": "remote.example", "uploaded_by": None, **columns}
    return await media(own, days, data=secrets.token_bytes(size), **facts)


async def asked_for(own: Installation, media_id: str, days: int) -> None:
    await own.rows(
        """INSERT INTO media_access SELECT server_name, media_id, $2 FROM media WHERE media_id = $1
           ON CONFLICT (server_name, media_id) DO UPDATE SET last_access_ts = EXCLUDED.last_access_ts""",
        media_id,
        now_ms() - days * DAY,
    )


def retention(own: Installation) -> Retention:
    return own.repository.administration.retention


async def plan(own: Installation, name: str) -> RetentionPlan:
    return await retention(own).plan(retention(own).policy(name), RetentionTally())


async def run(own: Installation, name: str) -> RetentionPlan:
    await plan(own, name)
    return await retention(own).run(retention(own).policy(name), "@admin:x", RetentionTally())


async def states(own: Installation) -> dict[str, str]:
    return {row["media_id"]: row["state"] for row in await own.rows("SELECT media_id, state FROM media")}


async def test_a_plan_says_what_would_go_and_removes_nothing(running: Any) -> None:
    async with running(OLD) as own:
        twice, once = secrets.token_bytes(500), secrets.token_bytes(40)
        old = {await media(own, 20, data=data) for data in (twice, twice, once, b"kept elsewhere")}
        await media(own, 1, data=b"kept elsewhere")

        found = await plan(own, "old")

        assert (found.count, found.size_bytes, found.freed_bytes) == (4, 1054, 540)
        assert {uri.rpartition("/")[2] for uri in found.examples} == old
        assert set((await states(own)).values()) == {"ready"}


async def test_a_policy_runs_only_when_its_plan_was_seen(running: Any) -> None:
    async with running(OLD) as own:
        media_id = await media(own, 20)
        policy = retention(own).policy("old")
        with pytest.raises(InvalidParamError, match="mediarepo retention plan old"):
            await retention(own).run(policy, "me", RetentionTally())
        with pytest.raises(InvalidParamError):
            await retention(own).arm(policy, "me")
        await plan(own, "old")
        changed = policy.model_copy(update={"max_age_ms": 1})
        with pytest.raises(InvalidParamError):
            await retention(own).run(changed, "me", RetentionTally())
        await own.rows("UPDATE retention_plan SET planned_ts = 1")
        with pytest.raises(InvalidParamError):
            await retention(own).run(policy, "me", RetentionTally())

        assert (await states(own))[media_id] == "ready"


async def test_only_armed_policies_run_by_the_clock_and_changing_one_disarms_it(running: Any) -> None:
    async with running(OLD, IDLE_REMOTE) as own:
        armed, unarmed = await media(own, 20), await remote(own, 20)
        await plan(own, "old")
        await plan(own, "idle")
        await retention(own).run_armed()
        before = await states(own)
        await retention(own).arm(retention(own).policy("old"), "@admin:x")
        await own.rows("UPDATE retention_plan SET fingerprint = 'another' WHERE policy = 'old'")
        await retention(own).run_armed()
        changed = await states(own)
        await plan(own, "old")
        disarmed = (await retention(own).stored())["old"].armed_ts
        await retention(own).arm(retention(own).policy("old"), "@admin:x")
        await retention(own).run_armed()

        assert set(before.values()) == set(changed.values()) == {"ready"}
        assert disarmed is None
        assert await states(own) == {armed: "trashed", unarmed: "ready"}


async def test_a_policy_that_fails_stops_none_after_it(running: Any) -> None:
    budget = {"name": "budget", "what": "remote", "high_bytes": 1000, "low_bytes": 600}
    async with running(budget, OLD) as own:
        media_id = await media(own, 20)
        for name in ("budget", "old"):
            await plan(own, name)
            await retention(own).arm(retention(own).policy(name), "@admin:x")
        await own.rows("ALTER TABLE media_usage RENAME COLUMN size_bytes TO elsewhere")
        with pytest.raises(asyncpg.UndefinedColumnError):
            await retention(own).run_armed()
        await own.rows("ALTER TABLE media_usage RENAME COLUMN elsewhere TO size_bytes")

        assert await states(own) == {media_id: "trashed"}


async def test_a_policy_whose_lease_passed_on_removes_nothing_more(running: Any) -> None:
    async with running(OLD) as own:
        media_id = await media(own, 20)
        await plan(own, "old")
        await retention(own).arm(retention(own).policy("old"), "@admin:x")
        async with own.repository.pending.lease_holder.acquire("job retention") as lease:
            assert lease is not None
            await own.rows("UPDATE lease SET fence = DEFAULT WHERE name = 'job retention'")
            with fenced(lease), pytest.raises(LeaseLostError):
                await retention(own).run_armed()

        assert await states(own) == {media_id: "ready"}


async def test_disarmed_policies_run_no_more(running: Any) -> None:
    async with running(OLD) as own:
        media_id = await media(own, 20)
        policy = retention(own).policy("old")
        await plan(own, "old")
        await retention(own).arm(policy, "@admin:x")
        await retention(own).disarm(policy, "@admin:x")
        await retention(own).run_armed()

        assert await states(own) == {media_id: "ready"}
        actions = [row["action"] for row in await own.rows("SELECT action FROM audit_log ORDER BY entry_id")]
        assert actions == ["arm_retention"] * 2 + ["disarm_retention"] * 2  # in the audit of both homeservers


async def test_local_media_go_into_the_trash_and_can_be_restored(running: Any) -> None:
    async with running(OLD) as own:
        media_id = await media(own, 20)
        removed = await run(own, "old")
        gone = (await own.get(own.download_path(media_id))).status
        await own.repository.administration.deletion.trash.take_back(
            Mxc(SERVER_NAME, media_id), AdminAction(by="@admin:x", owner=SERVER_NAME, action="restore")
        )

        assert removed.count == 1
        assert gone == 404
        assert (await own.get(own.download_path(media_id))).status == 200
        row = (await own.rows("SELECT * FROM audit_log"))[0]
        assert (row["admin"], row["action"], row["target"], row["affected"]) == ("@admin:x", "retention", "old", 1)


async def test_what_somebody_wants_kept_is_kept(running: Any) -> None:
    async with running(OLD) as own:
        for kind in ("pin", "hold", "protection", "quarantine"):
            await own.mark(await media(own, 20), kind)
            await own.mark(await media(own, 20), kind, owner=SERVER_NAME)
        hidden = await media(own, 20, data=b"evidence")
        await own.rows(
            """INSERT INTO quarantined_hash (sha256, quarantined_by, created_ts)
               SELECT sha256, 'a', 1 FROM blob JOIN media USING (blob_id) WHERE media_id = $1""",
            hidden,
        )
        goes = await media(own, 20)

        assert (await run(own, "old")).examples == [f"mxc://{SERVER_NAME}/{goes}"]


async def test_of_two_ages_both_must_be_exceeded(running: Any) -> None:
    async with running({**OLD, "max_idle_ms": 5 * DAY}) as own:
        used, unused, young = await media(own, 20), await media(own, 20), await media(own, 6)
        await asked_for(own, used, 1)
        await asked_for(own, unused, 6)
        await run(own, "old")

        assert await states(own) == {used: "ready", unused: "trashed", young: "ready"}


async def test_media_that_come_into_use_meanwhile_are_kept(running: Any) -> None:
    async with running(OLD) as own:
        used, unused = await media(own, 20), await media(own, 20)
        began_ts = now_ms()
        await asked_for(own, used, -1)
        trash = own.repository.administration.deletion.trash
        gone = await trash.put_unused([Mxc(SERVER_NAME, used), Mxc(SERVER_NAME, unused)], began_ts, DEED, "old")

        assert gone == [Mxc(SERVER_NAME, unused)]


async def test_a_policy_can_be_for_some_users_whose_names_are_taken_literally(running: Any) -> None:
    policy = {**OLD, "user_ids": ["@user_?:*"], "server_names": [SERVER_NAME]}
    async with running(policy) as own:
        theirs, others = await media(own, 20, uploaded_by=USER), await media(own, 20, uploaded_by=OTHER)
        await run(own, "old")

        assert await states(own) == {theirs: "trashed", others: "ready"}


@pytest.fixture
async def synapse() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as homeserver:
        homeserver.register("users", USER)
        yield homeserver


def homeservers(synapse: FakeHomeserver, **facts: object) -> dict[str, Any]:
    return {"homeservers": [{"server_name": SERVER_NAME, "client_api_url": synapse.url, **facts}]}


async def test_avatars_of_users_and_rooms_are_kept_as_an_admins_token_can_tell(
    running: Any, synapse: FakeHomeserver
) -> None:
    synapse.register("admins", "@admin:x")
    synapse.admins = {"@admin:x"}
    policy = {**OLD, "keep_avatars": True}
    async with running(policy, **homeservers(synapse, admin_token="admins")) as own:
        own.token = "users"
        of_user, of_room, goes = await media(own, 20), await media(own, 20), await media(own, 20)
        synapse.avatars = {
            "@any:x": f"mxc://{SERVER_NAME}/{of_user}",
            "!room:x": f"mxc://{SERVER_NAME}/{of_room}",
        }
        synapse.rooms = {"!room:x": []}
        removed = await run(own, "old")

        assert (removed.count, removed.kept_avatars, removed.kept_unknown) == (1, 2, 0)
        assert await states(own) == {of_user: "ready", of_room: "ready", goes: "trashed"}


async def test_without_an_admins_token_profiles_are_asked_and_silence_keeps(
    running: Any, synapse: FakeHomeserver
) -> None:
    async with running({**OLD, "keep_avatars": True}, **homeservers(synapse)) as own:
        own.token = "users"
        avatar, goes = await media(own, 20), await media(own, 20)
        silent, nobodys = await media(own, 20, uploaded_by=OTHER), await media(own, 20, uploaded_by=None)
        synapse.avatars = {USER: f"mxc://{SERVER_NAME}/{avatar}"}
        synapse.silent_profiles = {OTHER}
        removed = await run(own, "old")

        assert (removed.count, removed.kept_avatars, removed.kept_unknown) == (1, 1, 2)
        assert await states(own) == {avatar: "ready", goes: "trashed", silent: "ready", nobodys: "ready"}


async def test_a_homeserver_that_cannot_list_its_avatars_keeps_its_media_and_stops_nobody_elses(
    running: Any, synapse: FakeHomeserver
) -> None:
    synapse.register("admins", "@admin:x")
    synapse.admins = {"@admin:x"}
    both = [
        {"server_name": SERVER_NAME, "client_api_url": synapse.url, "admin_token": "nobodys"},
        {"server_name": OTHER_SERVER_NAME, "client_api_url": synapse.url, "admin_token": "admins"},
    ]
    async with running({**OLD, "keep_avatars": True}, homeservers=both) as own:
        own.token = "users"
        kept, goes = await media(own, 20), await media(own, 20, server_name=OTHER_SERVER_NAME)
        removed = await run(own, "old")

        assert (removed.count, removed.kept_unknown) == (1, 1)
        assert await states(own) == {kept: "ready", goes: "trashed"}


async def test_idle_remote_media_are_forgotten_with_their_objects_and_thumbnails(running: Any) -> None:
    async with running(IDLE_REMOTE) as own:
        picture = encoded(corners(64, 64), "PNG")
        used = await remote(own, 20)
        await asked_for(own, used, 1)
        idle = await media(own, 20, data=picture)
        await own.get(own.thumbnail_path(idle))
        await own.repository.access_times.flush()
        await own.rows("UPDATE media SET remote = true, uploaded_by = NULL WHERE media_id = $1", idle)
        await asked_for(own, idle, 15)
        before = await own.object_keys()
        planned = await plan(own, "idle")
        await run(own, "idle")
        await own.repository.sweeps.outbox.drain()
        after = await own.object_keys()

        assert await states(own) == {used: "ready"}
        assert (len(before), len(after)) == (3, 1)
        assert planned.freed_bytes > planned.size_bytes == len(picture)


async def test_a_budget_lets_the_longest_unused_go_until_the_low_mark(running: Any) -> None:
    policy = {"name": "budget", "what": "remote", "high_bytes": 1000, "low_bytes": 600}
    async with running(policy) as own:
        by_age = [await remote(own, days, size=250) for days in (9, 8, 7, 6)]
        await asked_for(own, by_age[0], 1)
        kept = await plan(own, "budget")
        newest = await remote(own, 0, size=1)
        removed = await run(own, "budget")

        assert kept.count == 0
        assert removed.count == 2
        assert set(await states(own)) == {by_age[0], by_age[3], newest}


async def test_thumbnails_go_and_are_made_anew(running: Any) -> None:
    policy = {"name": "thumbs", "what": "thumbnails", "max_idle_ms": 10 * DAY}
    async with running(policy) as own:
        picture = encoded(corners(64, 64), "PNG")
        media_id = await own.upload(picture)
        first = await own.get(own.thumbnail_path(media_id))
        await own.repository.access_times.flush()
        young = await run(own, "thumbs")
        await asked_for(own, media_id, 20)
        await own.rows("UPDATE blob SET created_ts = 1")
        removed = await run(own, "thumbs")
        await own.repository.sweeps.outbox.drain()
        objects = len(await own.object_keys())
        again = await own.get(own.thumbnail_path(media_id))

        assert (young.count, removed.count, objects) == (0, 1, 1)
        assert first.body == again.body


async def test_many_pages_are_walked_and_each_media_is_counted_once(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediarepo.db.retention._PAGE", 7)
    monkeypatch.setattr("mediarepo.services.retention._BATCH", 3)
    async with running(OLD) as own:
        same = secrets.token_bytes(100)
        await asyncio.gather(*(media(own, 20, data=same if n % 2 else None) for n in range(40)))
        planned = await plan(own, "old")
        removed = await run(own, "old")

        assert (planned.count, planned.freed_bytes) == (removed.count, removed.freed_bytes) == (40, 2100)
        assert set((await states(own)).values()) == {"trashed"}
