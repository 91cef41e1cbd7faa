"""What buckets do to those who only read them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from mediarepo.importers.errors import BytesVanishedError, SourceConfigError, SourceError, SourceUnavailableError
from mediarepo.importers.readers.byte_source import SourceProblem
from mediarepo.importers.readers.source_bucket import Bucket, BucketAddress, BucketByteSource
from mediarepo.model.import_source import ObjectBytes, ResolutionState
from tests.support.pauses import Pauses


@pytest.fixture
async def bucket(source_bucket: Any) -> AsyncIterator[Bucket]:
    bucket = Bucket(source_bucket.address)
    yield bucket
    await bucket.close()


@pytest.fixture
async def wired(source_bucket: Any, s3_wire: Any) -> AsyncIterator[Bucket]:
    """The same bucket, through a door that can be told to fail."""
    three_attempts = Pauses().policy(timeout_s=0.3)
    bucket = Bucket(replace(source_bucket.address, endpoint_url=s3_wire.endpoint_url), retrying=three_attempts)
    yield bucket
    await bucket.close()


async def test_listings_go_on_page_after_page(bucket: Bucket, source_bucket: Any) -> None:
    keys = [f"{source_bucket.prefix}many/{number:04}" for number in range(1005)]
    for key in keys:
        await source_bucket.put(key.removeprefix(source_bucket.prefix), b"x")

    listed = [stored.key async for stored in bucket.list(f"{source_bucket.prefix}many/")]
    rest = [stored.key async for stored in bucket.list(f"{source_bucket.prefix}many/", keys[1000])]

    assert listed == keys
    assert rest == keys[1001:]
    assert bucket.lists == 3


async def test_objects_are_described_and_read_in_small_pieces(bucket: Bucket, source_bucket: Any) -> None:
    await source_bucket.put("資 料+&=?.txt", bytes(700_000))
    await source_bucket.put("資 料+&=?.txt.longer", b"another")
    key = f"{source_bucket.prefix}資 料+&=?.txt"

    stored = await bucket.find(key)
    assert stored is not None
    assert (stored.size_bytes, len(stored.etag or "")) == (700_000, 32)
    assert stored.modified_ts > 1_700_000_000_000
    pieces = [len(piece) async for piece in bucket.get(key, etag=stored.etag)]

    assert sum(pieces) == 700_000
    assert max(pieces) <= 256 * 1024
    assert await bucket.find(f"{source_bucket.prefix}資") is None


async def test_empty_objects_are_objects(bucket: Bucket, source_bucket: Any) -> None:
    await source_bucket.put("empty", b"")
    byte_source = BucketByteSource("bucket", bucket, prefix=source_bucket.prefix)

    found = await byte_source.find("empty")

    assert isinstance(found, ObjectBytes)
    assert [piece async for piece in byte_source.open(found)] == []


async def test_outages_are_told_from_absence(wired: Bucket, source_bucket: Any, s3_wire: Any) -> None:
    await source_bucket.put("there", b"content")
    byte_source = BucketByteSource("bucket", wired, prefix=source_bucket.prefix)
    found = await byte_source.find("there")
    assert isinstance(found, ObjectBytes)
    assert await byte_source.find("nowhere") is None

    s3_wire.fail_next("*", status=503, code="SlowDown", times=3)
    trouble = await byte_source.find("nowhere")
    assert isinstance(trouble, SourceProblem)
    assert trouble.state is ResolutionState.UNREADABLE
    s3_wire.fail_next("*", status=503, code="SlowDown", times=3)
    with pytest.raises(SourceUnavailableError):
        [piece async for piece in byte_source.open(found)]
    s3_wire.fail_next("*", status=503, code="SlowDown", times=2)
    assert [piece async for piece in byte_source.open(found)] == [b"content"]


async def test_a_body_that_is_cut_off_goes_on_or_is_an_outage(wired: Bucket, source_bucket: Any, s3_wire: Any) -> None:
    await source_bucket.put("there", bytes(100_000))
    byte_source = BucketByteSource("bucket", wired, prefix=source_bucket.prefix)
    found = await byte_source.find("there")
    assert isinstance(found, ObjectBytes)

    s3_wire.cut_answer("GetObject", after_bytes=50_000)
    assert b"".join([piece async for piece in byte_source.open(found)]) == bytes(100_000)

    s3_wire.cut_answer("GetObject", after_bytes=50_000)
    s3_wire.fail_next("GetObject", status=503, code="SlowDown", times=20)
    with pytest.raises(SourceUnavailableError):
        [piece async for piece in byte_source.open(found)]


async def test_where_only_get_is_allowed_objects_are_still_found(
    wired: Bucket, source_bucket: Any, s3_wire: Any
) -> None:
    await source_bucket.put("there", b"content")
    byte_source = BucketByteSource("bucket", wired, prefix=source_bucket.prefix)

    s3_wire.fail_next("ListObjectsV2", status=403, code="AccessDenied", times=2)
    found = await byte_source.find("there")
    assert isinstance(found, ObjectBytes)
    assert (found.size_bytes, len(found.etag or "")) == (7, 32)
    assert await byte_source.find("nowhere") is None

    s3_wire.fail_next("ListObjectsV2", status=403, code="AccessDenied")
    assert [listed async for listed in byte_source.walk("")] == []
    assert "one by one" in byte_source.notes[0]
    s3_wire.fail_next("ListObjectsV2", status=503, code="SlowDown", times=3)
    with pytest.raises(SourceUnavailableError):
        [listed async for listed in byte_source.walk("")]


async def test_wrong_keys_and_buckets_are_told_in_words(source_bucket: Any) -> None:
    wrong = [
        replace(source_bucket.address, secret_access_key="wrong"),
        replace(source_bucket.address, bucket="no-such-bucket"),
    ]
    for address in wrong:
        bucket = Bucket(address)
        byte_source = BucketByteSource("bucket", bucket, prefix="x/")
        words = await byte_source.check()
        with pytest.raises(SourceError):
            [stored async for stored in bucket.list("x/")]
        await byte_source.close()

        assert words is not None
        assert "cannot be read" in words


def test_addresses_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(SourceConfigError, match="bucket"):
        Bucket(BucketAddress(bucket="-", endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(SourceConfigError):
        Bucket(BucketAddress(bucket="bucket", endpoint_url="127.0.0.1:1"))
    assert Bucket(BucketAddress(bucket="bucket", region="eu-west-1")).words.endswith(
        "https://s3.eu-west-1.amazonaws.com"
    )


class FakeS3:
    """An S3 server that encrypts with its clients' keys and archives, of which no real one is at hand."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if "list-type" in request.query:
            return web.Response(text=LISTING, content_type="application/xml")
        if "archived" in request.path:
            body = "<Error><Code>InvalidObjectState</Code><Message>archived</Message></Error>"
            return web.Response(status=403, text=body, content_type="application/xml")
        return web.Response(body=b"secret", headers={"ETag": '"of-no-md5"'})


LISTING = """<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>
<Contents><Key>p/local_content/archived</Key><Size>6</Size><ETag>"e"</ETag><StorageClass>GLACIER</StorageClass>
<LastModified>2026-11-23T00:00:00.000Z</LastModified></Contents>
<Contents><Key>p/local_content/secret</Key><Size>6</Size><ETag>"of-no-md5"</ETag>
<LastModified>2026-11-23T00:00:00.000Z</LastModified></Contents></ListBucketResult>"""


@pytest.fixture
async def fake_s3() -> AsyncIterator[FakeS3]:
    fake = FakeS3()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


def address_of(fake: FakeS3, **more: Any) -> BucketAddress:
    return BucketAddress(
        bucket="bucket", endpoint_url=fake.url, access_key_id="key", secret_access_key="secret", **more
    )


async def test_clients_keys_go_with_every_get_and_are_signed(fake_s3: FakeS3) -> None:
    bucket = Bucket(address_of(fake_s3, customer_key="k" * 32))

    data = [piece async for piece in bucket.get("p/local_content/secret", etag="of-no-md5")]
    await bucket.close()

    (headers,) = fake_s3.headers
    assert data == [b"secret"]
    assert headers["x-amz-server-side-encryption-customer-algorithm"] == "AES256"
    assert headers["x-amz-server-side-encryption-customer-key"] == "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
    assert headers["x-amz-server-side-encryption-customer-key-md5"] == "mT2HRsMGJ5IX5C+0rreZ8Q=="
    assert "x-amz-server-side-encryption-customer-key-md5" in headers["authorization"]


async def test_archived_objects_are_neither_found_nor_missing(fake_s3: FakeS3) -> None:
    byte_source = BucketByteSource("bucket", Bucket(address_of(fake_s3)), prefix="p/")

    listed = {one.path: one.trouble async for one in byte_source.walk("local_content/")}
    trouble = await byte_source.find("local_content/archived")
    with pytest.raises(SourceError, match="archived"):
        [
            piece
            async for piece in byte_source.open(ObjectBytes("bucket", "bucket", "p/local_content/archived", 6, None))
        ]
    await byte_source.close()

    assert listed == {"local_content/archived": trouble, "local_content/secret": None}
    assert isinstance(trouble, SourceProblem)
    assert "GLACIER" in trouble.words


async def test_another_object_under_the_key_is_not_given_out(fake_s3: FakeS3) -> None:
    bucket = Bucket(address_of(fake_s3))

    with pytest.raises(BytesVanishedError):
        [piece async for piece in bucket.get("p/local_content/secret", etag="another")]
    await bucket.close()
