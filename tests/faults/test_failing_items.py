"""One item that background work cannot process, among others that it can."""

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

from mediarepo.app.foundation import now_ms
from mediarepo.db.previews import CachedPreview, PreviewTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue
from mediarepo.services.batch_isolation import run_steps
from mediarepo.services.retention import RetentionTally
from mediarepo.storage.errors import StoreMisconfiguredError
from mediarepo.web.admin.api.endpoints import PREFIX
from tests.support.installation import SERVER_NAME, Installation, installed, settings_for
from tests.support.s3_wire import S3Wire

OPERATOR = "the operator's own token"
REASON = "RaiseError: this row is refused"


async def refuse(own: Installation, table: str, event: str, condition: str) -> None:
    """Let Postgres refuse to change some rows, as a broken reference would."""
    name = f"refuse_{secrets.token_hex(4)}"
    await own.rows(
        f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION 'this row is refused'; END $$"""
    )
    await own.rows(
        f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()"
    )


async def allow(own: Installation, table: str) -> None:
    await own.rows(f"ALTER TABLE {table} DISABLE TRIGGER USER")


async def set_aside(own: Installation) -> list[tuple[str, str, str, int]]:
    rows = await own.repository.administration.failed_items.read(queue=None, limit=100)
    return sorted((row.queue, row.item_key, row.error, row.attempts) for row in rows)


async def media(own: Installation, count: int, **columns: object) -> list[str]:
    found = [await own.upload(secrets.token_bytes(50)) for _ in range(count)]
    for name, value in columns.items():
        await own.rows(f"UPDATE media SET {name} = $2 WHERE media_id = ANY($1)", found, value)
    return found


async def states(own: Installation, media_ids: list[str]) -> list[str | None]:
    rows = await own.rows("SELECT media_id, state FROM media")
    by_id = {row["media_id"]: row["state"] for row in rows}
    return [by_id.get(media_id) for media_id in media_ids]


def mxc(media_id: str, server_name: str = SERVER_NAME) -> str:
    return f"mxc://{server_name}/{media_id}"


async def test_the_trash_sets_a_failing_row_aside_goes_on_and_tries_it_again(own: Installation) -> None:
    found = await media(own, 5)
    await own.rows("UPDATE media SET state = 'trashed', trashed_ts = 1")
    await refuse(own, "media", "UPDATE", f"NEW.state = 'tombstone' AND OLD.media_id = '{found[2]}'")
    empty = own.repository.administration.deletion.empty_trash

    with structlog.testing.capture_logs() as logs:
        await empty()
        await empty()
    first = await set_aside(own)
    others = await states(own, found)
    await own.repository.administration.failed_items.retry("@admin:x", queue="trash", key=None)
    await empty()
    second = await set_aside(own)
    await allow(own, "media")
    await own.repository.administration.failed_items.retry("@admin:x", queue=None, key=mxc(found[2]))
    await empty()

    assert others == ["tombstone", "tombstone", "trashed", "tombstone", "tombstone"]
    assert first == [("trash", mxc(found[2]), REASON, 1)]
    assert second == [("trash", mxc(found[2]), REASON, 2)]
    assert [line["item"] for line in logs if line["event"] == "item_set_aside"] == [mxc(found[2])]
    assert await set_aside(own) == []
    assert await states(own, found) == ["tombstone"] * 5


async def test_a_row_that_left_its_queue_by_other_means_is_not_set_aside_any_longer(own: Installation) -> None:
    found = await media(own, 2)
    await own.rows("UPDATE media SET state = 'trashed', trashed_ts = 1")
    await refuse(own, "media", "UPDATE", f"NEW.state = 'tombstone' AND OLD.media_id = '{found[0]}'")
    await own.repository.administration.deletion.empty_trash()
    await own.rows("UPDATE media SET state = 'ready', trashed_ts = NULL WHERE state = 'trashed'")
    await own.rows("UPDATE failed_item SET retry_ts = 1")
    await own.repository.administration.deletion.empty_trash()

    assert await set_aside(own) == []


async def empty_remote(own: Installation) -> None:
    deletion = own.repository.administration.deletion
    admin = await operator(own)
    await deletion.purge_remote(admin, before_ts=now_ms() + 1)


async def operator(own: Installation) -> Any:
    from mediarepo.cli.administration import operator as operator_of  # noqa: PLC0415 - brings the commands along

    return operator_of(own.settings)


async def expire_pending(own: Installation) -> None:
    await own.repository.pending.forget_expired()


async def tidy_previews(own: Installation) -> None:
    await own.repository.previews.tidy()


@pytest.mark.parametrize(
    ("queue", "make", "work"),
    [
        (
            Queue.REMOTE_MEDIA,
            "UPDATE media SET remote = true, uploaded_by = NULL",
            empty_remote,
        ),
        (
            Queue.PENDING_MEDIA,
            "UPDATE media SET state = 'pending', blob_id = NULL, expires_ts = 1",
            expire_pending,
        ),
        (Queue.PREVIEWS, "UPDATE media SET preview_expires_ts = 1", tidy_previews),
    ],
)
async def test_expiry_sets_a_failing_row_aside_and_removes_the_others(
    own: Installation, queue: Queue, make: str, work: Callable[[Installation], Awaitable[None]]
) -> None:
    found = await media(own, 4)
    await own.rows(make)
    await refuse(own, "media", "DELETE", f"OLD.media_id = '{found[1]}'")

    await work(own)
    await work(own)

    assert [state is None for state in await states(own, found)] == [True, False, True, True]
    assert await set_aside(own) == [(queue, mxc(found[1]), REASON, 1)]


async def test_a_preview_with_text_that_postgres_cannot_read_does_not_keep_images_from_expiring(
    own: Installation,
) -> None:
    (image,) = await media(own, 1, preview_expires_ts=1)
    table = PreviewTable(own.repository.foundation.database)
    await table.keep(bytes(32), "https://a.example/\x00", CachedPreview({"og:title": "\x00\ud800"}, None), 3_600_000)
    await table.keep(b"i" * 32, "https://a.example/", CachedPreview({"og:image": mxc(image)}, None), 3_600_000)
    await own.rows("UPDATE preview SET answer = $1 WHERE cache_key = $2", '{"og:title": "\\u0000"}', bytes(32))

    await own.repository.previews.tidy()

    assert await states(own, [image]) == [None]
    assert await table.get(b"i" * 32) is None
    assert await set_aside(own) == []


@pytest.mark.parametrize("what", ["local", "remote", "thumbnails"])
async def test_retention_sets_a_failing_row_aside_and_removes_the_others(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, what: str
) -> None:
    policy: dict[str, object] = {"name": "old", "what": what, "max_age_ms": 1000}
    if what == "local":
        policy["keep_avatars"] = False
    async with installed(settings_for(postgres, s3, retention={"policies": [policy]})) as own:
        found = await media(own, 4, created_ts=1)
        await own.rows("UPDATE media SET remote = $1", what == "remote")
        blobs = [await own.value("SELECT blob_id FROM media WHERE media_id = $1", one) for one in found]
        await own.rows("UPDATE blob SET created_ts = 1")
        if what == "thumbnails":
            await own.rows("UPDATE blob SET parent_blob_id = $1 WHERE blob_id <> $1", blobs[0])
            await own.rows("DELETE FROM media WHERE blob_id <> $1", blobs[0])
        table, event = ("blob", "DELETE") if what == "thumbnails" else ("media", "UPDATE OR DELETE")
        bad = f"OLD.blob_id = {blobs[1]}"
        await refuse(own, table, event, bad)
        retention = own.repository.administration.retention
        await retention.plan(retention.policy("old"), RetentionTally())

        done = await retention.run(retention.policy("old"), "@admin:x", RetentionTally())

        assert done.count == (2 if what == "thumbnails" else 3)
        key = f"thumbnails {blobs[1]}" if what == "thumbnails" else mxc(found[1])
        assert await set_aside(own) == [("retention", key, REASON, 1)]


async def test_folding_sets_a_failing_change_aside_and_folds_the_others(own: Installation) -> None:
    await media(own, 3)
    usage = own.repository.administration.usage
    await usage.fold()
    await own.rows(
        """INSERT INTO media_usage_delta (class, server_name, user_id, content_type, month, media_count, size_bytes)
           VALUES ('unheard of', 'a', 'b', 'image', '2026-01', 1, 1)"""
    )
    await media(own, 3)

    await usage.fold()
    await usage.fold()

    ((queue, key, _, attempts),) = await set_aside(own)
    left = await own.rows("SELECT delta_id, class FROM media_usage_delta")
    assert [(f"media {row['delta_id']}", row["class"]) for row in left] == [(key, "unheard of")]
    assert (queue, attempts) == ("usage", 1)


async def test_learning_hashes_passes_over_content_that_cannot_be_read(own: Installation) -> None:
    for store, key in [("gone", "somewhere"), ("main", f"{own.store.prefix}/local/nothing")]:
        await own.rows(
            """INSERT INTO blob (store, object_key, size_bytes, sha256_state, created_ts)
               VALUES ($1, $2, 50, 'unknown', 1)""",
            store,
            key,
        )
    (good,) = await media(own, 1)
    await own.rows("UPDATE blob SET sha256 = NULL, sha256_state = 'unknown' WHERE sha256 IS NOT NULL")
    await own.rows("INSERT INTO quarantined_hash VALUES ($1, 'somebody', NULL, 1, 50)", bytes(32))

    result = await own.repository.administration.hashing.learn_suspects()
    again = await own.repository.administration.hashing.learn_suspects()

    assert (result, again) == ({"hashed": 3}, {"hashed": 0})
    assert [row[0] for row in await set_aside(own)] == ["hashing", "hashing"]
    query = "SELECT sha256_state FROM blob JOIN media USING (blob_id) WHERE media_id = $1"
    assert await own.value(query, good) == "verified"


async def test_a_task_whose_end_cannot_be_written_does_not_keep_the_next_from_being_done(own: Installation) -> None:
    tasks = own.repository.administration.tasks
    bad = await tasks.add("fsck", {}, created_by="a", homeserver=None)
    good = await tasks.add("fsck", {}, created_by="a", homeserver=None)
    await refuse(own, "task", "UPDATE", f"NEW.task_id = {bad.task_id} AND NEW.finished_ts IS NOT NULL")

    await tasks.run_waiting()

    assert (await tasks.get(good.task_id)).state == "done"
    assert [(row[0], row[1]) for row in await set_aside(own)] == [("tasks", str(bad.task_id))]


async def test_an_access_time_that_is_refused_is_dropped_and_the_others_are_written(own: Installation) -> None:
    found = await media(own, 3)
    await refuse(own, "media_access", "INSERT", f"NEW.media_id = '{found[0]}'")
    for one in found:
        own.repository.access_times.note(Mxc(SERVER_NAME, one))

    await own.repository.access_times.flush()
    await own.repository.access_times.flush()

    written = await own.rows("SELECT media_id FROM media_access")
    assert {row["media_id"] for row in written} == set(found[1:])
    assert await set_aside(own) == [("access_times", mxc(found[0]), REASON, 1)]


async def test_a_deletion_that_s3_refuses_with_its_whole_batch_does_not_keep_the_others(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire
) -> None:
    async with installed(settings_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})) as own:
        await media(own, 3, state="tombstone", blob_id=None)
        keys = sorted(await own.object_keys())
        await own.rows("DELETE FROM blob")
        bad = f"{own.store.prefix}/local/\x01\ufffe"
        for key in [*keys, bad]:
            await own.rows(
                "INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts) VALUES ('main', $1, 1, 1)",
                key,
            )
        outbox = own.repository.sweeps.outbox

        await outbox.drain()

        left = await own.rows("SELECT object_key, last_error FROM object_deletion")
        assert await own.object_keys() == set()
        assert all(row["object_key"] == bad for row in left)
        assert [row[0] for row in await set_aside(own)] == ["object_deletions"] * len(left)


async def test_the_sweep_goes_on_when_one_claim_and_one_restoration_fail(own: Installation) -> None:
    found = await media(own, 2, state="missing")
    await own.rows("UPDATE blob SET missing_ts = 1")
    first = await own.value("SELECT blob_id FROM media WHERE media_id = $1", found[0])
    await refuse(own, "blob", "UPDATE", f"OLD.blob_id = {first}")
    upload_intents = [new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms()) for _ in range(2)]
    for key in upload_intents:
        await own.rows("INSERT INTO multipart_intent VALUES ('main', $1, NULL, 1, 1)", key)
    await refuse(own, "multipart_intent", "DELETE", f"OLD.object_key = '{upload_intents[0]}'")

    (report,) = await own.repository.sweeps.sweep()

    assert (report.stopped, report.found_again) == (None, 1)
    assert await states(own, found) == ["missing", "ready"]
    assert [row["object_key"] for row in await own.rows("SELECT object_key FROM multipart_intent")] == [
        upload_intents[0]
    ]
    assert [row[0] for row in await set_aside(own)] == ["multipart_uploads", "restored_objects"]


async def test_steps_of_one_job_are_all_taken_whatever_becomes_of_the_first() -> None:
    taken = []

    async def fail() -> None:
        taken.append("fail")
        raise ValueError("no")

    async def succeed() -> None:
        taken.append("succeed")

    with pytest.raises(ValueError, match="no"):
        await run_steps(fail, succeed)
    assert taken == ["fail", "succeed"]


async def test_an_outage_is_raised_and_sets_nothing_aside(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3)) as own:
        isolation = own.repository.foundation.isolation
        broken = StoreMisconfiguredError("the bucket is away")

        async def away(_items: object) -> int:
            raise broken

        store = own.store
        async with installed(settings_for(postgres, s3, store={"bucket": "no-such-bucket"}), migrate=True) as other:
            with pytest.raises(StoreMisconfiguredError):
                await other.repository.foundation.isolation.run(Queue.HASHING, ["a", "b"], away, store=lambda _: "main")
            raised = await set_aside(other)
        blamed = await isolation.run(Queue.HASHING, ["a", "b"], away, store=lambda _: store.name)

        assert raised == []
        assert (blamed.done, blamed.failed) == (0, 2)


async def test_what_is_set_aside_is_told_by_readiness_metrics_and_the_admin_api(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with installed(settings_for(postgres, s3, admin={"token": OPERATOR})) as own:
        found = await media(own, 2)
        await own.rows("UPDATE media SET state = 'trashed', trashed_ts = 1")
        before = (await own.get("/health/ready", token=None)).json
        await refuse(own, "media", "UPDATE", f"NEW.state = 'tombstone' AND OLD.media_id = '{found[0]}'")
        await own.repository.administration.deletion.empty_trash()

        ready = await own.get("/health/ready", token=None)
        counted = own.repository.foundation.metrics.exposition()[0].decode()
        listed = await own.get(f"{PREFIX}/failed_items?queue=trash", token=OPERATOR)
        body = json.dumps({"item_key": mxc(found[0])}).encode()
        retried = await own.request("POST", f"{PREFIX}/failed_items/retry", token=OPERATOR, data=body)

        assert before == {"status": "ok"}
        assert (ready.status, ready.json) == (200, {"status": "ok", "details": {"set_aside": {"trash": 1}}})
        assert 'mediarepo_item_failures_total{queue="trash"} 1.0' in counted
        ((one,),) = (listed.json["failed_items"],)
        assert (one["item_key"], one["error"], one["attempts"]) == (mxc(found[0]), REASON, 1)
        assert one["retry_ts"] > one["last_ts"]
        assert retried.json == {"affected": 1}
