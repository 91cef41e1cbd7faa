"""The door before the S3 server forwards faithfully, and spoils exactly what it is told to."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import aioboto3
import aiohttp
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError

from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.s3_operations import operation_of
from tests.support.s3_wire import ANY, S3Wire

MIB = 1024 * 1024
BROKEN = (ConnectionClosedError, EndpointConnectionError, HTTPClientError)


@pytest.fixture
async def client(s3: EmbeddedS3, s3_wire: S3Wire) -> AsyncIterator[Any]:
    """A client of someone else's making, that signs for the door and tries nothing twice."""
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=s3_wire.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
        config=config,
    ) as client:
        yield client


def at(key: str) -> dict[str, str]:
    return {"Bucket": "media", "Key": key}


async def body_of(client: Any, key: str) -> bytes:
    answer = await client.get_object(**at(key))
    async with answer["Body"] as body:
        read: bytes = await body.read()
        return read


async def test_signatures_and_bodies_pass_and_operations_have_their_names(client: Any, s3_wire: S3Wire) -> None:
    key, body = f"wire/ä b/{secrets.token_hex(4)}", secrets.token_bytes(5 * MIB)

    await client.put_object(**at(key), Body=body[:1000])
    upload = (await client.create_multipart_upload(**at(key)))["UploadId"]
    parts = []
    for number, part in enumerate((body, b"end"), 1):
        answer = await client.upload_part(**at(key), UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    await client.list_multipart_uploads(Bucket="media", Prefix=key)
    await client.complete_multipart_upload(**at(key), UploadId=upload, MultipartUpload={"Parts": parts})
    aborted = (await client.create_multipart_upload(**at(key)))["UploadId"]
    await client.abort_multipart_upload(**at(key), UploadId=aborted)

    assert (await client.head_object(**at(key)))["ContentLength"] == 5 * MIB + 3
    assert await body_of(client, key) == body + b"end"
    listed = await client.list_objects_v2(Bucket="media", Prefix=key)
    assert [found["Key"] for found in listed["Contents"]] == [key]
    await client.delete_objects(Bucket="media", Delete={"Objects": [{"Key": key}]})
    assert s3_wire.ops == [
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPart",
        "ListMultipartUploads",
        "CompleteMultipartUpload",
        "CreateMultipartUpload",
        "AbortMultipartUpload",
        "HeadObject",
        "GetObject",
        "ListObjectsV2",
        "DeleteObjects",
    ]
    assert s3_wire.of("GetObject")[0].sent_bytes == 5 * MIB + 3
    assert s3_wire.of("GetObject")[0].key == key
    assert b"<Part>" in s3_wire.of("CompleteMultipartUpload")[0].body
    assert {one.status for one in s3_wire.seen} <= {200, 204}


async def test_a_wrong_signature_is_refused_by_the_server_behind(client: Any, s3_wire: S3Wire, s3: EmbeddedS3) -> None:
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=s3_wire.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key="wrong",
    ) as stranger:
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            await stranger.list_objects_v2(Bucket="media")

    assert await client.list_objects_v2(Bucket="media")


async def test_an_error_is_told_in_the_servers_place_once(client: Any, s3_wire: S3Wire) -> None:
    s3_wire.fail_next("PutObject", status=403, code="AccessDenied")

    with pytest.raises(ClientError, match="AccessDenied"):
        await client.put_object(**at("wire/refused"), Body=b"a")

    with pytest.raises(ClientError, match="404"):
        await client.head_object(**at("wire/refused"))
    await client.put_object(**at("wire/refused"), Body=b"a")
    assert s3_wire.counts == {"PutObject": 2, "HeadObject": 1}


async def test_an_answer_can_be_lost_after_the_deed(client: Any, s3_wire: S3Wire) -> None:
    s3_wire.lose_answer("PutObject", times=2)  # aiohttp repeats what is idempotent once, of its own accord

    with pytest.raises(BROKEN):
        await client.put_object(**at("wire/lost"), Body=b"there")

    assert s3_wire.counts["PutObject"] == 2
    assert await body_of(client, "wire/lost") == b"there"


async def test_a_connection_can_be_reset_in_a_request_and_in_an_answer(client: Any, s3_wire: S3Wire) -> None:
    body = secrets.token_bytes(4 * MIB)
    s3_wire.drop_next("PutObject", after_bytes=MIB, times=2)
    with pytest.raises(BROKEN):
        await client.put_object(**at("wire/cut"), Body=body)
    assert MIB <= s3_wire.seen[0].received_bytes < 4 * MIB

    await client.put_object(**at("wire/cut"), Body=body)
    s3_wire.cut_answer("GetObject", after_bytes=MIB)
    with pytest.raises((aiohttp.ClientError, *BROKEN)):
        await body_of(client, "wire/cut")

    assert s3_wire.of("GetObject")[0].sent_bytes == MIB
    assert await body_of(client, "wire/cut") == body


@pytest.mark.parametrize("after", [False, True])
async def test_requests_wait_at_a_barrier_before_or_after_the_deed(client: Any, s3_wire: S3Wire, after: bool) -> None:
    key = f"wire/held-{after}"
    async with s3_wire.holding("PutObject", after=after) as held, asyncio.TaskGroup() as group:
        puts = [group.create_task(client.put_object(**at(key), Body=b"a")) for _ in range(2)]
        await held.arrived(2)
        listed = await client.list_objects_v2(Bucket="media", Prefix=key)
        assert listed["KeyCount"] == (1 if after else 0)
        assert not any(put.done() for put in puts)
        held.release()

    assert await body_of(client, key) == b"a"


async def test_the_door_closes_and_opens_at_the_same_address(client: Any, s3_wire: S3Wire) -> None:
    await s3_wire.stop()
    with pytest.raises(EndpointConnectionError):
        await client.list_objects_v2(Bucket="media")

    await s3_wire.start()
    s3_wire.fail_next(ANY, status=503, code="SlowDown")
    with pytest.raises(ClientError, match="SlowDown"):
        await client.list_objects_v2(Bucket="media")
    assert await client.list_objects_v2(Bucket="media")


def test_copies_and_buckets_are_told_apart() -> None:
    copy = {"x-amz-copy-source": "media/a"}

    assert operation_of("PUT", "/media/a", {}, copy) == "CopyObject"
    assert operation_of("PUT", "/media/a", {"uploadId": "1"}, copy) == "UploadPartCopy"
    assert operation_of("GET", "/media/", {}, {}) == "ListObjects"
    assert operation_of("PATCH", "/media/a", {}, {}) == "Unknown"
