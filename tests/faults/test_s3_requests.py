"""The bill: requests to S3, counted on the wire."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweed import EmbeddedS3
from tests.pictures.drawn import jpeg
from tests.support.faulty_s3 import FaultyS3
from tests.support.installation import Installation, installed, settings_for


class Bill:
    """An installation whose every request to S3 is seen."""

    def __init__(self, installation: Installation, wire: FaultyS3) -> None:
        self.installation = installation
        self.wire = wire

    def requests(self) -> Counter[str]:
        """Count what went over the wire since the last time."""
        seen = Counter(one.method for one in self.wire.seen)
        self.wire.seen.clear()
        return seen


@pytest.fixture
async def bill(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Bill]:
    async with (
        FaultyS3(s3.endpoint_url) as wire,
        installed(settings_for(postgres, s3, store={"endpoint_url": wire.endpoint_url})) as running,
    ):
        wire.seen.clear()
        yield Bill(running, wire)


async def test_a_small_upload_is_one_put_and_its_duplicate_none(bill: Bill) -> None:
    data = secrets.token_bytes(10_000)

    await bill.installation.upload(data)
    first = bill.requests()
    await bill.installation.upload(data)

    assert first == {"PUT": 1}
    assert bill.requests() == {}


async def test_a_download_is_one_get_and_304_and_head_none(bill: Bill) -> None:
    path = bill.installation.download_path(await bill.installation.upload(b"x" * 1000))
    bill.requests()

    etag = (await bill.installation.get(path)).headers["ETag"]
    assert bill.requests() == {"GET": 1}
    await bill.installation.get(path, headers={"Range": "bytes=1-2"})
    assert bill.requests() == {"GET": 1}
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

    assert made == {"GET": 2, "PUT": 1}
    assert bill.requests() == {"GET": 5}


async def test_a_large_upload_is_its_parts_and_two_more_and_its_duplicate_is_aborted(bill: Bill) -> None:
    data = secrets.token_bytes(20_000_000)

    await bill.installation.upload(data)
    first = bill.requests()
    await bill.installation.upload(data)
    second = bill.requests()

    assert first == {"POST": 2, "PUT": 3}
    assert second == {"POST": 1, "PUT": 3, "DELETE": 1}
    assert len(await bill.installation.object_keys()) == 1


async def test_bodies_have_known_lengths_and_no_trailers(bill: Bill) -> None:
    await bill.installation.upload(secrets.token_bytes(9_000_000))
    await bill.installation.repository.sweeps.sweep()

    for seen in bill.wire.seen:
        assert "transfer-encoding" not in seen.headers
        assert "x-amz-trailer" not in seen.headers
        assert "aws-chunked" not in seen.headers.get("content-encoding", "")
        assert not seen.headers.get("x-amz-content-sha256", "").startswith("STREAMING")
