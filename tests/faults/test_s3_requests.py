"""The bill: requests to S3, counted on the wire."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import jpeg
from tests.support.installation import Installation, installed, settings_for
from tests.support.s3_wire import S3Wire


class Bill:
    """An installation whose every request to S3 is seen."""

    def __init__(self, installation: Installation, wire: S3Wire) -> None:
        self.installation = installation
        self.wire = wire

    def requests(self) -> Counter[str]:
        """Count what went over the wire since the last time."""
        seen = Counter(self.wire.counts)
        self.wire.clear()
        return seen


@pytest.fixture
async def bill(postgres: EmbeddedPostgres, s3: EmbeddedS3, s3_wire: S3Wire) -> AsyncIterator[Bill]:
    async with installed(settings_for(postgres, s3, store={"endpoint_url": s3_wire.endpoint_url})) as running:
        s3_wire.clear()
        yield Bill(running, s3_wire)


async def test_a_small_upload_is_one_put_and_its_duplicate_none(bill: Bill) -> None:
    data = secrets.token_bytes(10_000)

    await bill.installation.upload(data)
    first = bill.requests()
    await bill.installation.upload(data)

    assert first == {"PutObject": 1}
    assert bill.requests() == {}


async def test_a_download_is_one_get_and_304_and_head_none(bill: Bill) -> None:
    path = bill.installation.download_path(await bill.installation.upload(b"x" * 1000))
    bill.requests()

    etag = (await bill.installation.get(path)).headers["ETag"]
    assert bill.requests() == {"GetObject": 1}
    await bill.installation.get(path, headers={"Range": "bytes=1-2"})
    assert bill.requests() == {"GetObject": 1}
    await bill.installation.get(path, headers={"If-None-Match": etag})
    await bill.installation.request("HEAD", path)
    await bill.installation.get(path, headers={"Range": "bytes=5000-"})
    assert bill.requests() == {}


async def test_all_thumbnails_of_a_picture_are_one_get_and_one_put_and_a_kept_one_is_one_get(bill: Bill) -> None:
    own = bill.installation
    media_id = await own.upload(jpeg(1000, 800))
    bill.requests()

    await own.get(own.thumbnail_path(media_id))
    made = bill.requests()
    for size in ((32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"), (640, 480, "scale"), (800, 600, "scale")):
        await own.get(own.thumbnail_path(media_id, *size))

    assert made == {"GetObject": 2, "PutObject": 1}
    assert bill.requests() == {"GetObject": 5}


async def test_a_large_upload_is_its_parts_and_two_more_and_its_duplicate_is_aborted(bill: Bill) -> None:
    data = secrets.token_bytes(20_000_000)

    await bill.installation.upload(data)
    first = bill.requests()
    await bill.installation.upload(data)
    second = bill.requests()

    assert first == {"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}
    assert second == {"CreateMultipartUpload": 1, "UploadPart": 3, "AbortMultipartUpload": 1}
    assert len(await bill.installation.object_keys()) == 1


async def test_bodies_have_known_lengths_and_no_trailers(bill: Bill) -> None:
    await bill.installation.upload(secrets.token_bytes(9_000_000))
    await bill.installation.repository.sweeps.sweep()

    for seen in bill.wire.seen:
        assert "transfer-encoding" not in seen.headers
        assert "x-amz-trailer" not in seen.headers
        assert "aws-chunked" not in seen.headers.get("content-encoding", "")
        assert not seen.headers.get("x-amz-content-sha256", "").startswith("STREAMING")


async def test_two_uploads_of_the_same_new_bytes_race_and_leave_one_object(bill: Bill) -> None:
    own, data = bill.installation, secrets.token_bytes(5000)
    async with bill.wire.holding("PutObject") as held:
        uploads = [asyncio.create_task(own.upload(data)) for _ in range(2)]
        await held.arrived(2)
        held.release()
    media_ids = await asyncio.gather(*uploads)
    await own.repository.sweeps.outbox.drain()

    assert bill.requests() == {"PutObject": 2, "DeleteObjects": 1}
    assert await own.object_keys() == {await own.value("SELECT object_key FROM blob")}
    for media_id in media_ids:
        assert (await own.get(own.download_path(media_id))).body == data


async def test_equal_requests_for_a_thumbnail_share_one_job(bill: Bill) -> None:
    own = bill.installation
    media_id = await own.upload(jpeg(900, 700))
    bill.requests()
    async with bill.wire.holding("GetObject") as held:
        options = [asyncio.create_task(own.get(own.thumbnail_path(media_id, 640, 480, "scale"))) for _ in range(10)]
        await held.arrived(1)
        held.release()
    answers = await asyncio.gather(*options)

    assert len({answer.body for answer in answers}) == 1
    assert bill.requests() == {"GetObject": 11, "PutObject": 1}
