import asyncio
import itertools
import os
from collections.abc import Callable

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.storage.errors import ObjectMissingError, StorageError
from mediarepo.storage.store import ListedMultipart, Store

PART_BYTES = 8 * 1024 * 1024


class Gathering:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, data: bytes, /) -> None:
        self.pieces.append(data)


async def fill(store: Store, name: str, body: bytes = b"x") -> str:
    key = f"{store.prefix}/{name}"
    await store.put(key, [body], size_bytes=len(body), metadata={})
    return key


async def fetch(store: Store, key: str, byte_range: ByteRange | None = None) -> bytes:
    sink = Gathering()
    async with store.open(key, byte_range) as stored:
        await stored.send_to(sink)
    body = b"".join(sink.pieces)
    assert len(body) == stored.size_bytes
    return body


@pytest.mark.parametrize("size_bytes", [0, 1, 10_000, 300_000])
async def test_what_was_put_comes_back(store: Store, size_bytes: int) -> None:
    body = os.urandom(size_bytes)
    chunks = [body[start : start + 4096] for start in range(0, size_bytes, 4096)]
    key = f"{store.prefix}/local/a"

    await store.put(key, chunks, size_bytes=size_bytes, metadata={"mxc": "mxc://exämple.org/a b"})

    assert await fetch(store, key) == body
    async with store.open(key) as stored:
        assert await stored.read() == body


async def test_what_was_put_in_parts_comes_back(store: Store) -> None:
    parts = [os.urandom(PART_BYTES), os.urandom(PART_BYTES), os.urandom(4_000_000)]
    size_bytes = sum(map(len, parts))
    key = f"{store.prefix}/local/a"

    upload_id = await store.begin_multipart(key, metadata={"mxc": "mxc://example.org/a"})
    etags = [
        await store.put_part(key, upload_id, number, [part[:65_536], part[65_536:]], size_bytes=len(part))
        for number, part in enumerate(parts, 1)
    ]
    await store.complete_multipart(key, upload_id, etags, size_bytes=size_bytes)

    assert await fetch(store, key) == b"".join(parts)
    assert await fetch(store, key, ByteRange(PART_BYTES - 2, 4)) == parts[0][-2:] + parts[1][:2]


@pytest.mark.parametrize(
    "byte_range",
    [ByteRange(0, 1), ByteRange(5_000, 1), ByteRange(9_999, 1), ByteRange(17, 4_000), ByteRange(0, 10_000)],
)
async def test_a_span_comes_alone(store: Store, byte_range: ByteRange) -> None:
    body = os.urandom(10_000)
    key = await fill(store, "local/a", body)
    assert await fetch(store, key, byte_range) == body[byte_range.offset : byte_range.offset + byte_range.size_bytes]


@pytest.mark.parametrize("byte_range", [ByteRange(10_000, 1), ByteRange(9_999, 2), ByteRange(20_000, 5)])
async def test_a_span_beyond_the_object_is_an_error(store: Store, byte_range: ByteRange) -> None:
    key = await fill(store, "local/a", os.urandom(10_000))
    with pytest.raises(StorageError):
        async with store.open(key, byte_range):
            pass


async def test_a_missing_key_is_missing(store: Store) -> None:
    with pytest.raises(ObjectMissingError) as caught:
        async with store.open(f"{store.prefix}/local/nothing"):
            pass
    assert caught.value.object_key == f"{store.prefix}/local/nothing"
    with pytest.raises(ObjectMissingError):
        await store.read(f"{store.prefix}/nothing", max_bytes=10)


async def test_a_small_object_is_read_whole(store: Store) -> None:
    key = await fill(store, "marker", b"installation")
    assert await store.read(key, max_bytes=12) == b"installation"
    with pytest.raises(StorageError, match="at most 11"):
        await store.read(key, max_bytes=11)


async def test_odd_keys_of_other_programs_are_read(config: Callable[..., StoreConfig]) -> None:
    async with Store("theirs", config(prefix="theirs")) as theirs:
        for name in ("a b", "ä+%2F&=", "a//b"):
            key = await fill(theirs, name, name.encode())
            assert await fetch(theirs, key) == name.encode()


async def test_thousands_of_objects_are_listed_in_order_and_deleted(store: Store) -> None:
    keys = [f"{store.prefix}/local/{number:05}" for number in range(2_100)]
    await asyncio.gather(*(store.put(key, [b"xy"], size_bytes=2, metadata={}) for key in keys[:1_050]))

    listed = [found async for found in store.list(f"{store.prefix}/")]
    after = [found.key async for found in store.list(f"{store.prefix}/", start_after=keys[1_047])]
    remaining = await store.delete(keys)

    assert [(one.key, one.size_bytes) for one in listed] == [(key, 2) for key in keys[:1_050]]
    assert {len(one.etag) for one in listed} == {32}
    assert after == keys[1_048:1_050]
    assert remaining == {}
    assert [found async for found in store.list(f"{store.prefix}/")] == []


async def test_prefixes_are_listed_like_folders(store: Store) -> None:
    for name in ("local/2026112301/a", "local/2026112301/b", "local/2026112302/c", "remote/2026112301/d"):
        await fill(store, name)
    under = f"{store.prefix}/local/"
    assert [found async for found in store.list_prefixes(under)] == [f"{under}2026112301/", f"{under}2026112302/"]


async def test_open_uploads_are_listed_until_they_are_aborted(store: Store) -> None:
    keys = [f"{store.prefix}/local/{name}" for name in "ab"]
    uploads = [ListedMultipart(key, await store.begin_multipart(key, metadata={})) for key in keys]
    assert {found async for found in store.list_multiparts(f"{store.prefix}/")} == set(uploads)

    for upload, _ in itertools.product(uploads, range(2)):
        await store.abort_multipart(upload.key, upload.upload_id)

    assert [found async for found in store.list_multiparts(f"{store.prefix}/")] == []
    assert [found async for found in store.list(f"{store.prefix}/")] == []


async def test_nothing_outside_the_prefix_is_changed(store: Store) -> None:
    for key in (f"{store.prefix}-other/a", store.prefix, "a", ""):
        with pytest.raises(ValueError, match="outside"):
            await store.delete([f"{store.prefix}/a", key])
        with pytest.raises(ValueError, match="outside"):
            await store.put(key, [], size_bytes=0, metadata={})
        with pytest.raises(ValueError, match="outside"):
            await store.begin_multipart(key, metadata={})
        with pytest.raises(ValueError, match="outside"):
            await store.abort_multipart(key, "upload")


@pytest.mark.parametrize("changes", [{"content_md5": True}, {"checksum": "crc32"}, {"checksum": "sha256"}])
async def test_the_server_accepts_what_bodies_declare(
    config: Callable[..., StoreConfig], changes: dict[str, object]
) -> None:
    async with Store("main", config(**changes)) as store:
        key = await fill(store, "local/a", os.urandom(1_000))
        upload_id = await store.begin_multipart(key, metadata={})
        etag = await store.put_part(key, upload_id, 1, [b"abc"], size_bytes=3)
        await store.complete_multipart(key, upload_id, [etag], size_bytes=3)
        assert await fetch(store, key) == b"abc"


async def test_proxies_of_the_environment_are_not_for_storage(
    config: Callable[..., StoreConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Store("main", config()) as store:
        await store.check()
        assert await fetch(store, await fill(store, "local/a", b"abc")) == b"abc"
