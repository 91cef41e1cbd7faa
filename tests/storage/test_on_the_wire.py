import base64
import hashlib
import socket
import zlib
from collections.abc import Callable

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.storage.control import CopySource
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import FaultyS3, reply


async def do_everything(store: Store) -> None:
    key = f"{store.prefix}/local/a"
    await store.check()
    await store.put(key, [b"ab", b"c"], size_bytes=3, metadata={"mxc": "mxc://example.org/a"})
    async with store.open(key, ByteRange(1, 2)) as stored:
        await stored.read()
    upload_id = await store.begin_multipart(key, metadata={"mxc": "mxc://example.org/a"})
    etag = await store.put_part(key, upload_id, 1, [b"abc"], size_bytes=3)
    await store.complete_multipart(key, upload_id, [etag], size_bytes=3)
    await store.abort_multipart(key, await store.begin_multipart(key, metadata={}))
    assert [found.key async for found in store.list(f"{store.prefix}/")] == [key]
    assert [found async for found in store.list_prefixes(f"{store.prefix}/")] == [f"{store.prefix}/local/"]
    assert [found async for found in store.list_multiparts(f"{store.prefix}/")] == []
    assert await store.delete([key]) == {}


@pytest.mark.parametrize("changes", [{}, {"content_md5": True, "checksum": "sha256"}])
async def test_no_request_has_trailers_chunks_or_a_checksum_nobody_asked_for(
    config: Callable[..., StoreConfig], faulty: FaultyS3, changes: dict[str, object]
) -> None:
    async with Store("main", config(endpoint_url=faulty.endpoint_url, **changes)) as store:
        await do_everything(store)

    assert len(faulty.seen) == 12
    for seen in faulty.seen:
        assert "x-amz-trailer" not in seen.headers
        assert "transfer-encoding" not in seen.headers
        assert "aws-chunked" not in seen.headers.get("content-encoding", "")
        assert "STREAMING" not in seen.headers["x-amz-content-sha256"]
        assert "x-amz-sdk-checksum-algorithm" not in seen.headers
        assert "expect" not in seen.headers
        assert seen.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
        if not changes:
            assert not [name for name in seen.headers if name.startswith("x-amz-checksum")]


async def test_a_put_is_one_request_with_a_known_length_and_signed_metadata(
    faulty_store: Store, faulty: FaultyS3
) -> None:
    key = f"{faulty_store.prefix}/local/a"
    await faulty_store.put(key, [b"ab", b"c"], size_bytes=3, metadata={"mxc": "mxc://example.org/a"})

    (seen,) = faulty.seen
    assert (seen.method, seen.body) == ("PUT", b"abc")
    assert seen.headers["content-length"] == "3"
    assert seen.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert seen.headers["x-amz-meta-mxc"] == "mxc://example.org/a"
    assert "x-amz-meta-mxc" in seen.headers["authorization"].partition("SignedHeaders=")[2]
    assert "content-md5" not in seen.headers


async def test_an_empty_put_says_so(faulty_store: Store, faulty: FaultyS3) -> None:
    await faulty_store.put(f"{faulty_store.prefix}/local/a", [], size_bytes=0, metadata={})
    assert faulty.seen[0].headers["content-length"] == "0"


async def test_bodies_declare_what_is_configured(config: Callable[..., StoreConfig], faulty: FaultyS3) -> None:
    settings = config(endpoint_url=faulty.endpoint_url, content_md5=True, checksum="crc32")
    async with Store("main", settings) as store:
        await store.put(f"{store.prefix}/a", [b"ab", b"c"], size_bytes=3, metadata={})
        upload_id = await store.begin_multipart(f"{store.prefix}/b", metadata={})
        await store.put_part(f"{store.prefix}/b", upload_id, 1, [b"abc"], size_bytes=3)
        await store.abort_multipart(f"{store.prefix}/b", upload_id)

    whole, _, part, _ = faulty.seen
    md5 = base64.b64encode(hashlib.md5(b"abc", usedforsecurity=False).digest()).decode()
    assert whole.headers["content-md5"] == part.headers["content-md5"] == md5
    assert whole.headers["x-amz-checksum-crc32"] == base64.b64encode(zlib.crc32(b"abc").to_bytes(4, "big")).decode()
    assert "x-amz-checksum-crc32" not in part.headers


async def test_a_deletion_carries_the_md5_of_its_body(faulty_store: Store, faulty: FaultyS3) -> None:
    await faulty_store.delete([f"{faulty_store.prefix}/{number}" for number in range(1_001)])
    assert [seen.body.count(b"<Key>") for seen in faulty.seen] == [1_000, 1]
    for seen in faulty.seen:
        md5 = hashlib.md5(seen.body, usedforsecurity=False).digest()
        assert seen.headers["content-md5"] == base64.b64encode(md5).decode()


async def test_connections_are_used_again(config: Callable[..., StoreConfig], faulty: FaultyS3) -> None:
    faulty.plan(*[reply(200, b"abc")] * 5)
    async with Store("main", config(endpoint_url=faulty.endpoint_url)) as store:
        for _ in range(5):
            assert await store.read(f"{store.prefix}/a", max_bytes=3) == b"abc"
    assert faulty.connections == 1


async def test_the_bucket_can_stand_in_the_host_name(
    config: Callable[..., StoreConfig], faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **named: lookup("127.0.0.1", *rest, **named))
    port = faulty.endpoint_url.rpartition(":")[2]
    listing = b"<ListBucketResult><Name>media</Name></ListBucketResult>"
    faulty.plan(reply(200, b"abc"), reply(200, listing))

    async with Store("main", config(endpoint_url=f"http://s3.test:{port}", path_style=False)) as store:
        assert await store.read(f"{store.prefix}/a", max_bytes=3) == b"abc"
        await store.check()

    assert [seen.target.partition("?")[0] for seen in faulty.seen] == [f"/{store.prefix}/a", "/"]
    assert {seen.headers["host"] for seen in faulty.seen} == {f"media.s3.test:{port}"}


async def test_an_address_may_have_a_path(config: Callable[..., StoreConfig], faulty: FaultyS3) -> None:
    faulty.plan(reply(200, b"abc"))
    async with Store("main", config(endpoint_url=f"{faulty.endpoint_url}/storage/v1/s3")) as store:
        assert await store.read(f"{store.prefix}/a", max_bytes=3) == b"abc"
    assert faulty.seen[0].target == f"/storage/v1/s3/media/{store.prefix}/a"


async def test_temporary_credentials_send_their_token_signed(
    config: Callable[..., StoreConfig], faulty: FaultyS3
) -> None:
    faulty.plan(reply(200, b"abc"), reply(200, b"<ListBucketResult><Name>media</Name></ListBucketResult>"))
    async with Store("main", config(endpoint_url=faulty.endpoint_url, session_token="the-token")) as store:
        await store.read(f"{store.prefix}/a", max_bytes=3)
        await store.check()
    for seen in faulty.seen:
        assert seen.headers["x-amz-security-token"] == "the-token"
        assert "x-amz-security-token" in seen.headers["authorization"].partition("SignedHeaders=")[2]


async def test_uploads_are_listed_page_by_page(faulty_store: Store, faulty: FaultyS3) -> None:
    page = (
        "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k&amp;</NextKeyMarker>"
        "<NextUploadIdMarker>u</NextUploadIdMarker><Upload><Key>{0}</Key><UploadId>{0}-id</UploadId></Upload>"
        "</ListMultipartUploadsResult>"
    )
    faulty.plan(reply(200, page.format("a").encode()), reply(200, page.format("b").encode()))

    found = [upload.upload_id async for upload in faulty_store.list_multiparts("a")]

    assert found == ["a-id", "b-id"]
    assert "key-marker=k%26" in faulty.seen[1].target
    assert "upload-id-marker=u" in faulty.seen[1].target


async def test_media_are_stored_in_the_configured_class_and_nothing_else_is(
    config: Callable[..., StoreConfig], faulty: FaultyS3
) -> None:
    settings = config(endpoint_url=faulty.endpoint_url, storage_class="STANDARD_IA")
    async with Store("main", settings) as store:
        media, marker = f"{store.prefix}/local/2026010100/a", f"{store.prefix}/installation"
        for key in (media, marker):
            await store.put(key, [b"abc"], size_bytes=3, metadata={})
            await store.copy(CopySource(store.bucket, media, 3), key, metadata={})
            await store.abort_multipart(key, await store.begin_multipart(key, metadata={}))

    classes = [
        (seen.target.partition("?")[0], seen.headers.get("x-amz-storage-class"))
        for seen in faulty.seen
        if seen.method != "DELETE"
    ]
    assert [one for path, one in classes if path.endswith("/local/2026010100/a")] == ["STANDARD_IA"] * 3
    assert [one for path, one in classes if path.endswith("/installation")] == [None] * 3
