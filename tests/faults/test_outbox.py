"""Deletions that cannot be carried out, beside others that can."""

from mediarepo.app.foundation import now_ms
from mediarepo.db.deletion import DeletionTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import Mxc
from tests.support.installation import Installation, installed, settings_for
from tests.support.s3_wire import S3Wire


async def delete(own: Installation, media_id: str) -> None:
    assert await DeletionTable(own.repository.foundation.database).delete(Mxc(own.server_name, media_id))


async def queue_aborts(own: Installation, count: int) -> None:
    """Queue what the sweep makes of multipart uploads that died."""
    for _ in range(count):
        key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms())
        upload_id = await own.store.begin_multipart(key, metadata={})
        await own.rows(
            """INSERT INTO object_deletion (store, object_key, upload_id, queued_ts, next_attempt_ts)
               VALUES ('main', $1, $2, 0, 0) RETURNING 1""",
            key,
            upload_id,
        )


async def reasons(own: Installation) -> list[str | None]:
    return [row["last_error"] for row in await own.rows("SELECT last_error FROM object_deletion")]


async def test_what_lies_outside_of_the_prefix_waits_and_blocks_nothing(own: Installation) -> None:
    media_id = await own.upload(b"under the prefix")
    await own.rows(
        """INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
           VALUES ('main', 'elsewhere/local/2026010100/x', 1, 1) RETURNING 1"""
    )
    await delete(own, media_id)

    assert await own.repository.sweeps.outbox.drain() == 1
    assert await own.object_keys() == set()
    (reason,) = await reasons(own)
    assert reason is not None
    assert own.store.prefix in reason


async def test_an_abort_that_is_refused_blocks_neither_deletions_nor_other_aborts(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire
) -> None:
    async with installed(settings_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})) as own:
        await delete(own, await own.upload(b"delete me"))
        await queue_aborts(own, 2)
        s3_wire.fail_next("AbortMultipartUpload", status=400, code="InvalidArgument")

        assert await own.repository.sweeps.outbox.drain() == 2
        assert await own.object_keys() == set()
        (reason,) = await reasons(own)
        assert reason is not None
        assert "InvalidArgument" in reason


async def test_an_outage_ends_the_aborts_and_all_of_them_come_back_later(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire
) -> None:
    async with installed(settings_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})) as own:
        await queue_aborts(own, 5)
        s3_wire.fail_next("AbortMultipartUpload", status=403, code="AccessDenied", times=5)

        assert await own.repository.sweeps.outbox.drain() == 0
        assert s3_wire.counts["AbortMultipartUpload"] == 3
        s3_wire.clear()
        await own.rows("UPDATE object_deletion SET next_attempt_ts = 0 RETURNING 1")
        assert await own.repository.sweeps.outbox.drain() == 5


async def test_a_store_that_cannot_be_reached_holds_up_neither_other_stores_nor_deletions(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    settings = settings_for(postgres, s3)
    main = settings.stores["main"]
    broken = main.model_copy(update={"bucket": "no-such-bucket"})
    async with installed(settings.model_copy(update={"stores": {"a_broken": broken, "main": main}})) as own:
        await delete(own, await own.upload(b"bye"))

        first, second = await own.repository.sweeps.sweep()

        assert first.stopped is not None
        assert "no-such-bucket" in first.stopped
        assert second.stopped is None
        assert await own.object_keys() == set()
        assert await reasons(own) == []
