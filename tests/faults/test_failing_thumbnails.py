"""Thumbnails that fail for reasons of the moment, and thumbnails whose bytes are gone."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from mediarepo.db.media import ThumbnailTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.media import Blob
from mediarepo.services.stores import marker_key
from tests.pictures.drawn import jpeg
from tests.pictures.filmed import sample
from tests.support.installation import Answer, Installation, installed, settings_for


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    thumbnails = {"workers": 1, "dynamic_sizes": True, "job_timeout_ms": 5000}
    async with installed(settings_for(postgres, s3, thumbnails=thumbnails)) as running:
        yield running


async def killed_while_rendering(own: Installation, path: str) -> Answer:
    """Ask for a thumbnail, and kill the worker that is to make it."""
    pool = own.repository.thumbnails.rendering.pool
    if not pool.pids:
        new = jpeg(40, 40 + await own.value("SELECT count(*) FROM blob"))
        await own.get(own.thumbnail_path(await own.upload(new)))
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    options = asyncio.create_task(own.get(path))
    while not pool.busy:
        await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return await options


async def test_a_worker_that_dies_makes_a_thumbnail_wait_not_impossible(own: Installation) -> None:
    media_id = await own.upload(jpeg(700, 700))

    answer = await killed_while_rendering(own, own.thumbnail_path(media_id))
    again = await own.get(own.thumbnail_path(media_id))

    assert (answer.status, answer.json["errcode"]) == (503, "M_UNKNOWN")
    assert int(answer.headers["Retry-After"]) > 0
    assert again.status == 200
    assert await own.value("SELECT count(*) FROM thumbnail_failure") == 0


async def test_a_worker_that_is_starved_makes_a_thumbnail_wait_not_impossible(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    settings = settings_for(postgres, s3, thumbnails={"workers": 1, "job_timeout_ms": 2000})
    async with installed(settings) as own:
        await own.get(own.thumbnail_path(await own.upload(jpeg(40, 40))))
        media_id = await own.upload(jpeg(700, 700))
        os.kill(own.repository.thumbnails.rendering.pool.pids[0], signal.SIGSTOP)

        assert (await own.get(own.thumbnail_path(media_id))).status == 503
        assert (await own.get(own.thumbnail_path(media_id))).status == 200


async def test_content_that_kills_its_workers_is_given_up_for_a_day(own: Installation) -> None:
    media_id = await own.upload(jpeg(700, 700))
    path = own.thumbnail_path(media_id)

    statuses = [(await killed_while_rendering(own, path)).status for _ in range(3)]
    remembered = await own.get(path)
    await own.rows("UPDATE thumbnail_failure SET retry_ts = retry_ts - 86400000 RETURNING 1")
    next_day = await own.get(path)

    assert statuses == [503, 503, 400]
    assert remembered.status == 400
    assert next_day.status == 200


async def test_that_a_format_is_not_supported_is_remembered_for_a_day_only(own: Installation) -> None:
    media_id = await own.upload(sample(), content_type="video/mp4")

    refused = await own.get(own.thumbnail_path(media_id))
    await own.get(own.thumbnail_path(media_id))
    remembered = await own.rows("SELECT attempts, retry_ts - created_ts AS wait_ms FROM thumbnail_failure")
    await own.rows("UPDATE thumbnail_failure SET retry_ts = 1 RETURNING 1")
    await own.get(own.thumbnail_path(media_id))

    assert (refused.status, refused.json["errcode"]) == (400, "M_UNKNOWN")
    assert [dict(row) for row in remembered] == [{"attempts": 1, "wait_ms": 86_400_000}]
    assert await own.value("SELECT attempts FROM thumbnail_failure") == 2


async def test_a_failure_of_one_size_hides_no_kept_one(own: Installation) -> None:
    media_id = await own.upload(jpeg(700, 700))
    kept = await own.get(own.thumbnail_path(media_id))
    await own.rows(
        """INSERT INTO thumbnail_failure (source_blob_id, animated, reason, created_ts)
           SELECT blob_id, false, 'cannot be thumbnailed: output_too_large', 0 FROM media RETURNING 1"""
    )

    assert (await own.get(own.thumbnail_path(media_id))).body == kept.body
    assert (await own.get(own.thumbnail_path(media_id, 31, 31))).body == kept.body


async def test_a_failure_of_content_that_is_just_being_deleted_is_no_error(own: Installation) -> None:
    await own.upload(b"no picture")
    database = own.repository.foundation.database
    blob_id = await own.value("SELECT blob_id FROM blob")
    source = Blob(blob_id, "main", "", 10)
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM media")
        await connection.execute("DELETE FROM blob")
        noting = asyncio.create_task(
            ThumbnailTable(database, 1000).note_failure(source, "corrupt", animated=False, momentary=False)
        )
        while not await own.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)

    assert await noting
    assert await own.value("SELECT count(*) FROM thumbnail_failure") == 0


@pytest.mark.parametrize("size_bytes", [5, 500_000])
async def test_an_object_of_another_size_than_its_row_is_an_outage_and_not_remembered(
    own: Installation, size_bytes: int
) -> None:
    media_id = await own.upload(jpeg(700, 700))
    key = await own.value("SELECT object_key FROM blob")
    good = await own.store.read(key, max_bytes=1_000_000)
    await own.store.put(key, [bytes(size_bytes)], size_bytes=size_bytes, metadata={})

    answer = await own.get(own.thumbnail_path(media_id))
    await own.store.put(key, [good], size_bytes=len(good), metadata={})

    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert (await own.get(own.thumbnail_path(media_id))).status == 200


async def test_lost_thumbnails_that_come_out_with_another_size_are_sent_at_once(own: Installation) -> None:
    media_id = await own.upload(jpeg(700, 701))
    first = await own.get(own.thumbnail_path(media_id, 320, 240, "scale"))
    pack = await own.value("SELECT object_key FROM blob WHERE parent_blob_id IS NOT NULL")
    other_quality = own.settings.thumbnails.model_copy(update={"jpeg_quality": 30})

    async with installed(own.settings.model_copy(update={"thumbnails": other_quality}), migrate=False) as later:
        await later.store.delete([pack])
        second = await later.get(later.thumbnail_path(media_id, 320, 240, "scale"))

    assert (first.status, second.status) == (200, 200)
    assert int(second.headers["Content-Length"]) == len(second.body) < len(first.body)


async def test_thumbnails_missing_in_a_bucket_that_is_not_ours_are_not_lost(own: Installation) -> None:
    media_id = await own.upload(jpeg(700, 701))
    first = await own.get(own.thumbnail_path(media_id))
    pack = await own.value("SELECT object_key FROM blob WHERE parent_blob_id IS NOT NULL")
    bytes_of_pack = await own.store.read(pack, max_bytes=1_000_000)
    await own.store.delete([pack, marker_key(own.store)])

    answer = await own.get(own.thumbnail_path(media_id))
    await own.store.put(pack, [bytes_of_pack], size_bytes=len(bytes_of_pack), metadata={})

    assert answer.status == 503
    assert (await own.get(own.thumbnail_path(media_id))).body == first.body
    assert await own.value("SELECT count(*) FROM object_deletion") == 0
