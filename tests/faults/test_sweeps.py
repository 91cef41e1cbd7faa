import asyncio
import secrets

import pytest

from mediarepo.app.build_services import build_repairs
from mediarepo.app.foundation import now_ms
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.sweep import UploadIntents
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.services.fsck import FsckLevel, FsckProgress
from mediarepo.services.stores import marker_key
from tests.support.installation import Installation, installed, settings_for
from tests.support.s3_wire import S3Wire

HOUR_MS = 3_600_000


async def leave_orphans(own: Installation, count: int, *, age_ms: int = 2 * HOUR_MS) -> set[str]:
    """Leave objects as an upload leaves them that died between its PUT and its row."""
    keys = {new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - age_ms) for _ in range(count)}
    await asyncio.gather(*(own.store.put(key, [b"x"], size_bytes=1, metadata={}) for key in keys))
    return keys


async def open_multiparts(own: Installation) -> int:
    return len([found async for found in own.store.list_multiparts(f"{own.store.prefix}/")])


async def test_what_no_row_knows_is_removed_and_nothing_else(own: Installation) -> None:
    media_id = await own.upload(secrets.token_bytes(100))
    known = await own.object_keys()
    orphans = await leave_orphans(own, 30)
    assert await own.object_keys() == known | orphans

    await own.repository.sweeps.sweep()
    assert await own.object_keys() == known | orphans
    (report,) = await own.repository.sweeps.sweep()

    assert report.stopped is None
    assert (report.unknown, report.condemned) == (30, 30)
    assert await own.object_keys() == known
    assert (await own.get(own.download_path(media_id))).status == 200


async def test_what_is_young_is_left_alone(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3)) as own:
        orphans = await leave_orphans(own, 5, age_ms=HOUR_MS)

        (report,) = await own.repository.sweeps.sweep()

        assert report.unknown == 0
        assert await own.object_keys() == orphans


async def test_objects_outside_our_prefix_are_never_touched(own: Installation) -> None:
    foreign = own.store.prefix + "-foreign/local/2020010100/" + "0" * 9 + "-" + "a" * 32
    await own.store._wire.put(foreign, [b"x"], size_bytes=1, headers={})
    strange = [f"{own.store.prefix}/notes", f"{own.store.prefix}/local/2020010100/readme"]
    for key in strange:
        await own.store.put(key, [b"x"], size_bytes=1, metadata={})

    await own.repository.sweeps.sweep()

    assert await own.store.read(foreign, max_bytes=10) == b"x"
    assert await own.object_keys() >= set(strange)


async def test_another_installations_marker_stops_the_sweep(own: Installation) -> None:
    await own.repository.sweeps.sweep()
    orphans = await leave_orphans(own, 3)
    text = b"00000000-0000-0000-0000-000000000000\n"
    await own.store.put(marker_key(own.store), [text], size_bytes=len(text), metadata={})

    (report,) = await own.repository.sweeps.sweep()

    assert report.stopped is not None
    assert "another installation" in report.stopped
    assert b'mediarepo_sweeps_stopped_total{store="main"} 1.0' in (await own.get("/metrics")).body
    assert await own.object_keys() == orphans


async def test_a_database_from_a_backup_stops_the_sweep(own: Installation) -> None:
    await own.upload(b"known")
    known, orphans = await own.object_keys(), await leave_orphans(own, 101)

    reports = [await own.repository.sweeps.sweep() for _ in range(2)]

    for (report,) in reports:
        assert "101 of " in (report.stopped or "")
    assert await own.object_keys() == known | orphans
    assert await own.value("SELECT count(*) FROM object_deletion") == 0


async def test_a_multipart_upload_that_died_is_aborted_whether_or_not_its_id_was_written_down(
    own: Installation,
) -> None:
    upload_intents = UploadIntents(own.repository.foundation.database)
    for known in (True, False):
        key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - 2 * HOUR_MS)
        await upload_intents.begin("main", key)
        upload_id = await own.store.begin_multipart(key, metadata={})
        if known:
            await upload_intents.beat("main", key, upload_id)
    await own.rows("UPDATE multipart_intent SET heartbeat_ts = heartbeat_ts - 10000 RETURNING 1")
    assert await open_multiparts(own) == 2

    await own.repository.sweeps.sweep()

    assert await open_multiparts(own) == 0
    assert await own.value("SELECT count(*) FROM multipart_intent") == 0


async def test_an_object_completed_before_its_row_was_written_is_removed(own: Installation) -> None:
    upload_intents = UploadIntents(own.repository.foundation.database)
    key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - 2 * HOUR_MS)
    await upload_intents.begin("main", key)
    upload_id = await own.store.begin_multipart(key, metadata={})
    await upload_intents.beat("main", key, upload_id)
    etag = await own.store.put_part(key, upload_id, 1, [b"x" * 1000], size_bytes=1000)
    await own.store.complete_multipart(key, upload_id, [etag], size_bytes=1000)
    await own.rows("UPDATE multipart_intent SET heartbeat_ts = heartbeat_ts - 10000 RETURNING 1")

    await own.repository.sweeps.sweep()

    assert await own.object_keys() == set()
    assert await own.value("SELECT count(*) FROM object_deletion") == 0


async def test_a_multipart_upload_that_lives_is_left_alone(own: Installation) -> None:
    upload_intents = UploadIntents(own.repository.foundation.database)
    key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - 2 * HOUR_MS)
    await upload_intents.begin("main", key)
    upload_id = await own.store.begin_multipart(key, metadata={})
    await own.rows("UPDATE multipart_intent SET heartbeat_ts = heartbeat_ts + 100000 RETURNING 1")

    await own.repository.sweeps.sweep()

    assert await open_multiparts(own) == 1
    assert await upload_intents.beat("main", key, upload_id)


async def test_the_outbox_never_removes_an_object_that_a_blob_refers_to(own: Installation) -> None:
    media_id = await own.upload(b"dear")
    key = await own.value("SELECT object_key FROM blob")
    await own.rows(
        """INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts) VALUES ('main', $1, 0, 0)
           RETURNING 1""",
        key,
    )

    assert await own.repository.sweeps.outbox.drain() == 0
    assert b"mediarepo_deletions_waiting 1.0" in (await own.get("/metrics")).body
    assert (await own.get(own.download_path(media_id))).body == b"dear"


async def test_deleted_media_leaves_a_tombstone_and_no_object(own: Installation) -> None:
    media_id = await own.upload(b"gone soon")
    assert await DeletionTable(own.repository.foundation.database).delete(Mxc(own.server_name, media_id))

    assert (await own.get(own.download_path(media_id))).status == 404
    assert await own.repository.sweeps.outbox.drain() == 1
    assert await own.object_keys() == set()
    assert await own.value("SELECT state FROM media") == "tombstone"


async def test_an_object_that_has_vanished_is_404_and_its_media_are_missing(own: Installation) -> None:
    first, second = await own.upload(b"vanishing"), await own.upload(b"vanishing")
    await own.store.delete([await own.value("SELECT object_key FROM blob")])

    assert (await own.get(own.download_path(first))).json["errcode"] == "M_NOT_FOUND"
    assert (await own.get(own.download_path(second))).status == 404

    states = await own.rows("SELECT state FROM media")
    assert {row["state"] for row in states} == {"missing"}
    assert b"mediarepo_objects_missing_total 1.0" in (await own.get("/metrics")).body
    again = await own.upload(b"vanishing")
    assert (await own.get(own.download_path(again))).body == b"vanishing"


async def test_a_bucket_that_is_not_ours_is_an_outage_not_a_loss(own: Installation) -> None:
    media_id = await own.upload(b"safe elsewhere")
    key = await own.value("SELECT object_key FROM blob")
    await own.store.delete([key, marker_key(own.store)])

    answer = await own.get(own.download_path(media_id))

    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert await own.value("SELECT state FROM media") == "ready"


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed"), (500, "InternalError")]
)
async def test_what_cannot_be_listed_is_told_and_the_rest_is_done(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire, status: int, code: str
) -> None:
    overrides = {
        "store": {"endpoint_url": s3_wire.endpoint_url},
        "sweep": {"grace_ms": 1000, "unknown_object_age_ms": 0},
    }
    async with installed(settings_for(postgres, s3, **overrides)) as own:
        await own.upload(b"known")
        known = await own.object_keys()
        await leave_orphans(own, 3)
        s3_wire.fail_next("ListMultipartUploads", status=status, code=code, times=100)

        await own.repository.sweeps.sweep()
        (report,) = await own.repository.sweeps.sweep()
        progress = FsckProgress()
        repairs = build_repairs(own.repository.foundation)
        found = [drift async for drift in repairs.fsck.check(own.store, FsckLevel(), progress, lambda: None)]

        assert (report.stopped, report.unknown) == (None, 3)
        assert report.unchecked is not None
        assert report.unchecked.startswith("open multipart uploads: ")
        assert report.figures()["unchecked"] == report.unchecked
        assert await own.object_keys() == known
        assert found == []
        assert [what.partition(":")[0] for what in progress.unchecked] == ["open multipart uploads"]


async def test_an_upload_that_was_begun_without_its_id_being_written_down_is_found_by_its_key(
    own: Installation,
) -> None:
    key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms() - 2 * HOUR_MS)
    await UploadIntents(own.repository.foundation.database).begin("main", key, None)
    await own.store.begin_multipart(key, metadata={})
    await own.rows("UPDATE multipart_intent SET heartbeat_ts = 0 RETURNING 1")

    await own.repository.sweeps._condemn_stale()

    assert await open_multiparts(own) == 0
    assert await own.value("SELECT count(*) FROM multipart_intent") == 0
