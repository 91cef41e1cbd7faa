import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.storage.errors import (
    ObjectMissingError,
    StorageError,
    StorageUnavailableError,
    UnsupportedRequestError,
)
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import (
    FaultyS3,
    Step,
    answer_without_a_length,
    forward,
    hang_up,
    lose_answer,
    reply,
    stall,
    stay_silent,
    truncate,
    without_length,
)
from tests.support.pauses import Pauses

Requests = list[tuple[str, str]]
SLOW_DOWN = reply(503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
NO_SUCH_BUCKET = reply(404, b"<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>")


class Recording:
    def __init__(self, *, breaks_after: int | None = None) -> None:
        self.size_bytes = 0
        self.breaks_after = breaks_after

    async def write(self, data: bytes, /) -> None:
        self.size_bytes += len(data)
        if self.breaks_after is not None and self.size_bytes > self.breaks_after:
            raise ConnectionResetError("the client is gone")


async def put(store: Store, body: bytes = b"abc") -> str:
    key = f"{store.prefix}/local/a"
    await store.put(key, [body], size_bytes=len(body), metadata={})
    return key


@pytest.mark.parametrize("trouble", [hang_up, lose_answer, SLOW_DOWN, reply(500), reply(502, b"<html>")])
async def test_a_moment_of_trouble_is_not_noticed(faulty_store: Store, faulty: FaultyS3, trouble: Any) -> None:
    faulty.plan(trouble, forward, trouble)
    key = await put(faulty_store)
    assert await faulty_store.read(key, max_bytes=3) == b"abc"
    faulty.plan(trouble)
    async with faulty_store.open(key) as stored:
        assert await stored.read() == b"abc"
    faulty.plan(trouble)
    assert await faulty_store.delete([key]) == {}
    faulty.plan(trouble)
    assert [found async for found in faulty_store.list(faulty_store.prefix)] == []


async def test_requests_and_outcomes_are_counted(faulty_store: Store, faulty: FaultyS3, requests: Requests) -> None:
    faulty.plan(SLOW_DOWN)
    await put(faulty_store)
    with suppress(ObjectMissingError):
        await faulty_store.read(f"{faulty_store.prefix}/nothing", max_bytes=3)
    assert requests == [("put", "unavailable"), ("put", "ok"), ("get", "missing")]


async def test_lasting_trouble_is_an_outage_with_a_hint(faulty_store: Store, faulty: FaultyS3, pauses: Pauses) -> None:
    faulty.plan(*[SLOW_DOWN] * 30)
    with pytest.raises(StorageUnavailableError, match="fewer requests") as caught:
        await put(faulty_store)
    assert caught.value.retry_after_s is not None
    assert sum(pauses.slept) == pytest.approx(8)
    assert len(faulty.seen) == len(pauses.slept) + 1


@pytest.mark.parametrize("answer", [NO_SUCH_BUCKET, reply(404), reply(404, b"404 page not found"), reply(403)])
async def test_an_outage_never_looks_like_missing(faulty_store: Store, faulty: FaultyS3, answer: Any) -> None:
    faulty.plan(answer)
    with pytest.raises(StorageUnavailableError):
        async with faulty_store.open(f"{faulty_store.prefix}/a"):
            pass


async def test_silence_is_given_up_and_not_asked_again(faulty_store: Store, faulty: FaultyS3) -> None:
    faulty.plan(stay_silent, stay_silent)
    with pytest.raises(StorageUnavailableError, match="did not answer in time"):
        await put(faulty_store)
    with pytest.raises(StorageUnavailableError, match="did not answer in time"):
        async with faulty_store.open(f"{faulty_store.prefix}/a"):
            pass
    assert len(faulty.seen) == 2


@pytest.mark.parametrize("cut", [truncate, stall])
@pytest.mark.parametrize("come", [0, 2_000])
async def test_a_body_that_ends_early_goes_on_by_range(
    faulty_store: Store, faulty: FaultyS3, cut: Callable[[int], Any], come: int
) -> None:
    key = await put(faulty_store, b"x" * 10_000)
    sink = Recording()
    faulty.plan(cut(come), SLOW_DOWN, cut(500))
    async with faulty_store.open(key) as stored:
        await stored.send_to(sink)
    assert sink.size_bytes == 10_000
    assert [seen.headers.get("range") for seen in faulty.seen[-4:]] == [
        None,
        *[f"bytes={come}-9999"] * 2,
        f"bytes={come + 500}-9999",
    ]
    assert faulty_store.read_connections.in_use == 0


@pytest.mark.parametrize("trouble", [SLOW_DOWN, truncate(0), truncate(7)])
async def test_a_body_that_does_not_go_on_is_an_error(
    faulty_store: Store, faulty: FaultyS3, pauses: Pauses, trouble: Step
) -> None:
    key = await put(faulty_store, b"x" * 10_000)
    sink = Recording()
    faulty.plan(truncate(2_000), *[trouble] * 100)
    async with faulty_store.open(key) as stored:
        with pytest.raises(StorageUnavailableError):
            await stored.send_to(sink)
    assert 2_000 <= sink.size_bytes < 3_000
    assert sum(pauses.slept) == pytest.approx(8)
    assert faulty_store.read_connections.in_use == 0


async def test_a_body_that_comes_on_and_off_is_gone_on_with(
    faulty_store: Store, faulty: FaultyS3, pauses: Pauses
) -> None:
    key = await put(faulty_store, b"x" * 12_000_000)
    sink = Recording()
    faulty.plan(*[truncate(1_100_000)] * 10)
    async with faulty_store.open(key) as stored:
        await stored.send_to(sink)
    assert sink.size_bytes == 12_000_000
    assert max(pauses.slept) == min(pauses.slept)


@pytest.mark.parametrize("answer", [416, 412, 404])
async def test_a_body_whose_object_has_gone_breaks_off(faulty_store: Store, faulty: FaultyS3, answer: int) -> None:
    key = await put(faulty_store, b"x" * 10_000)
    faulty.plan(truncate(2_000), reply(answer, b"<Error><Code>Gone</Code><Message>gone</Message></Error>"))
    async with faulty_store.open(key) as stored:
        with pytest.raises(StorageError):
            await stored.send_to(Recording())
    assert len(faulty.seen) == 3
    assert faulty_store.read_connections.in_use == 0


async def test_a_body_goes_on_only_with_an_object_of_the_same_length(faulty_store: Store, faulty: FaultyS3) -> None:
    key = await put(faulty_store, b"x" * 10_000)
    shorter = "ETag: {etag}\r\nContent-Range: bytes 2000-9999/12345\r\n"
    async with faulty_store.open(key) as stored:
        etag = stored.etag
    faulty.plan(truncate(2_000), reply(206, b"x" * 8_000, headers=shorter.format(etag=etag)))
    async with faulty_store.open(key) as stored:
        with pytest.raises(StorageError, match="another object"):
            await stored.send_to(Recording())


async def test_what_s3_asks_to_be_waited_is_waited(faulty_store: Store, faulty: FaultyS3, pauses: Pauses) -> None:
    asks = reply(503, b"<Error><Code>SlowDown</Code></Error>", headers="Retry-After: 3\r\n")
    faulty.plan(asks)
    key = await put(faulty_store)
    faulty.plan(asks)
    assert await faulty_store.begin_multipart(key, metadata={})
    assert pauses.slept == [3, 3]

    faulty.plan(*[reply(503, headers="Retry-After: 1000\r\n")] * 2)
    with pytest.raises(StorageUnavailableError) as caught:
        await faulty_store.read(key, max_bytes=3)
    assert caught.value.retry_after_s == 1000
    assert pauses.slept[2:] == [8]


async def test_a_dead_s3_is_not_stormed(config: Callable[..., StoreConfig], faulty: FaultyS3, pauses: Pauses) -> None:
    retrying = pauses.policy(retries=20)
    async with Store("main", config(endpoint_url=faulty.endpoint_url), retrying=retrying) as store:
        key = await put(store, b"x" * 10_000)
        faulty.plan(truncate(2_000), *[SLOW_DOWN] * 1_000)
        async with store.open(key) as stored:
            calls = [
                stored.send_to(Recording()),
                store.delete([key]),
                store.size_of(key),
                store.begin_multipart(key, metadata={}),
                *(put(store) for _ in range(30)),
                *(store.read(key, max_bytes=10) for _ in range(30)),
            ]
            answers = await asyncio.gather(*calls, return_exceptions=True)

        assert all(isinstance(answer, StorageUnavailableError) for answer in answers)
        assert len(faulty.seen) <= 2 + len(calls) + 20
        assert retrying.budget.left < 1

        faulty.seen.clear()
        with pytest.raises(StorageUnavailableError):
            await put(store)
        assert len(faulty.seen) == 1

        faulty.clear_plan()
        for _ in range(6):
            await put(store)
        faulty.plan(SLOW_DOWN)
        await put(store)


async def test_a_body_goes_on_only_with_the_same_object(faulty_store: Store, faulty: FaultyS3) -> None:
    key = await put(faulty_store, b"x" * 10_000)
    sink = Recording()
    faulty.plan(truncate(2_000))
    async with faulty_store.open(key) as stored:
        await faulty_store.put(key, [b"y" * 10_000], size_bytes=10_000, metadata={})
        with pytest.raises(StorageError, match="another object"):
            await stored.send_to(sink)
    assert sink.size_bytes in {0, 2_000}
    assert faulty_store.read_connections.in_use == 0


async def test_a_body_of_unknown_length_is_an_error(faulty_store: Store, faulty: FaultyS3) -> None:
    faulty.plan(answer_without_a_length)
    with pytest.raises(StorageError, match="does not say how long"):
        async with faulty_store.open(f"{faulty_store.prefix}/a"):
            pass


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("known_bytes", [10_000, None])
async def test_an_answer_without_a_length_is_counted(
    faulty_store: Store, faulty: FaultyS3, *, chunked: bool, known_bytes: int | None
) -> None:
    body = bytes(range(250)) * 40
    key = await put(faulty_store, body)
    faulty.plan(without_length(chunked=chunked))
    if known_bytes is None:
        faulty.plan(forward, without_length(chunked=chunked))  # HEAD tells, and the object is asked for again
    async with faulty_store.open(key, known_bytes=known_bytes) as stored:
        assert stored.size_bytes == len(body)
        assert await stored.read() == body

    faulty.plan(without_length(chunked=chunked))
    async with faulty_store.open(key, ByteRange(100, 200), known_bytes=known_bytes) as stored:
        assert await stored.read() == body[100:300]


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(("more", "fewer"), [(b"x", 0), (b"", 1), (b"", 10_000)])
@pytest.mark.parametrize("byte_range", [None, ByteRange(0, 10_000)])
async def test_an_answer_without_a_length_must_have_the_bytes_that_are_known(
    faulty_store: Store, faulty: FaultyS3, *, chunked: bool, more: bytes, fewer: int, byte_range: ByteRange | None
) -> None:
    key = await put(faulty_store, b"x" * 10_000)
    faulty.plan(without_length(chunked=chunked, more=more, fewer=fewer))
    async with faulty_store.open(key, byte_range, known_bytes=10_000) as stored:
        if fewer:  # what is missing is asked for
            assert await stored.read() == b"x" * 10_000
            return
        with pytest.raises(StorageUnavailableError, match="bytes than it should"):
            await stored.read()


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument"), (405, "MethodNotAllowed"), (501, None)]
)
async def test_where_the_server_has_no_bulk_delete_objects_go_one_by_one(
    faulty_store: Store, faulty: FaultyS3, status: int, code: str | None
) -> None:
    keys = [f"{faulty_store.prefix}/local/{number}" for number in range(20)]
    for key in keys[:19]:
        await faulty_store.put(key, [b"x"], size_bytes=1, metadata={})
    faulty.plan(reply(status, f"<Error><Code>{code}</Code></Error>".encode() if code else b""))
    faulty.seen.clear()

    assert await faulty_store.delete(keys) == {}
    assert [found async for found in faulty_store.list(f"{faulty_store.prefix}/")] == []
    assert [seen.method for seen in faulty.seen[:21]] == ["POST"] + ["DELETE"] * 20
    faulty.seen.clear()
    assert await faulty_store.delete(keys[:2]) == {}
    assert [seen.method for seen in faulty.seen] == ["DELETE"] * 2


@pytest.mark.parametrize("status", [501, 405])
async def test_a_server_that_cannot_list_multipart_uploads_is_told_as_that(
    faulty_store: Store, faulty: FaultyS3, status: int
) -> None:
    faulty.plan(reply(status, b"<Error><Code>NotImplemented</Code></Error>"))
    with pytest.raises(UnsupportedRequestError):
        _ = [found async for found in faulty_store.list_multiparts(f"{faulty_store.prefix}/")]
    nothing = b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
    faulty.plan(reply(200, nothing, headers="Server: MinIO\r\n"))
    with pytest.raises(UnsupportedRequestError, match="whole key"):
        _ = [found async for found in faulty_store.list_multiparts(f"{faulty_store.prefix}/")]
    faulty.plan(reply(200, nothing))
    assert [found async for found in faulty_store.list_multiparts(f"{faulty_store.prefix}/")] == []

    faulty.plan(*[reply(403, b"<Error><Code>AccessDenied</Code></Error>")] * 3)
    with pytest.raises(StorageUnavailableError):
        _ = [found async for found in faulty_store.list_multiparts(f"{faulty_store.prefix}/")]


async def test_what_cannot_be_deleted_one_by_one_is_told_and_an_outage_stops(
    faulty_store: Store, faulty: FaultyS3
) -> None:
    keys = [f"{faulty_store.prefix}/local/{number}" for number in range(3)]
    refused = b"<Error><Code>ObjectLocked</Code><Message>kept</Message></Error>"
    faulty.plan(reply(501, b"<Error><Code>NotImplemented</Code></Error>"))
    faulty.plan_for("DELETE", "/local/1", reply(409, refused))
    remaining = await faulty_store.delete(keys)

    assert set(remaining) == {keys[1]}
    faulty.plan(*[reply(403, b"<Error><Code>AccessDenied</Code></Error>")] * 3)
    with pytest.raises(StorageUnavailableError):
        await faulty_store.delete(keys)


async def test_a_part_without_an_etag_is_an_error(
    faulty_store: Store, faulty: FaultyS3, requests: list[tuple[str, str]]
) -> None:
    faulty.plan(reply(200))
    with pytest.raises(StorageError, match="without giving its ETag"):
        await faulty_store.put_part(f"{faulty_store.prefix}/a", "upload", 1, [b"abc"], size_bytes=3)
    assert requests == [("put_part", "refused")]


async def test_an_error_that_is_cut_short_is_trouble_like_any_other(faulty_store: Store, faulty: FaultyS3) -> None:
    key = await put(faulty_store)
    faulty.plan(truncate(10))
    with pytest.raises(ObjectMissingError):
        await faulty_store.read(f"{key}/nothing", max_bytes=3)
    assert await faulty_store.read(key, max_bytes=3) == b"abc"


async def test_a_request_that_finds_no_free_connection_gives_up(config: Callable[..., StoreConfig]) -> None:
    async with Store("main", config(max_connections=1, pool_timeout_ms=300)) as store:
        key = await put(store, b"x" * 3_000_000)
        async with store.open(key):
            with pytest.raises(StorageUnavailableError, match="none of max_connections was free"):
                await store.read(key, max_bytes=3)


async def test_a_cancelled_upload_leaves_no_connection_behind(store: Store) -> None:
    task = asyncio.create_task(put(store, b"x" * 30_000_000))
    connections = store.write_connections
    while not connections.in_use:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not connections.in_use


async def test_a_small_object_cut_short_is_read_again(faulty_store: Store, faulty: FaultyS3) -> None:
    key = await put(faulty_store)
    faulty.plan(truncate(1))
    assert await faulty_store.read(key, max_bytes=3) == b"abc"


async def test_the_sinks_failure_is_not_the_stores(faulty_store: Store, faulty: FaultyS3) -> None:
    key = await put(faulty_store, b"x" * 3_000_000)
    with pytest.raises(ConnectionResetError, match="the client is gone"):
        async with faulty_store.open(key) as stored:
            await stored.send_to(Recording(breaks_after=100_000))
    assert await faulty_store.read(await put(faulty_store), max_bytes=3) == b"abc"
    assert faulty.seen[-1].method == "GET"


async def test_a_cancelled_download_leaves_no_connection_behind(store: Store) -> None:
    key = await put(store, b"x" * 3_000_000)
    entered = asyncio.Event()

    class Stuck:
        async def write(self, _: bytes, /) -> None:
            entered.set()
            await asyncio.Event().wait()

    async def download() -> None:
        async with store.open(key) as stored:
            await stored.send_to(Stuck())

    task = asyncio.create_task(download())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not store.read_connections.in_use
    assert not store._wire.reading.in_use


async def test_a_span_the_server_ignores_is_an_error(faulty_store: Store, faulty: FaultyS3) -> None:
    faulty.plan(reply(200, b"abc"), reply(206, b"a", headers="Content-Range: bytes 0-0/3\r\n"))
    for _ in range(2):
        with pytest.raises(StorageError):
            async with faulty_store.open(f"{faulty_store.prefix}/a", ByteRange(1, 1)):
                pass


async def test_what_could_not_be_deleted_is_told(faulty_store: Store, faulty: FaultyS3) -> None:
    keys = [f"{faulty_store.prefix}/{name}" for name in "abc"]
    failed = f"<Error><Key>{keys[1]}</Key><Code>AccessDenied</Code><Message>held</Message></Error>"
    gone = f"<Error><Key>{keys[2]}</Key><Code>NoSuchKey</Code><Message>gone</Message></Error>"
    faulty.plan(reply(200, f"<DeleteResult>{failed}{gone}</DeleteResult>".encode()))
    assert await faulty_store.delete(keys) == {keys[1]: "AccessDenied: held"}


async def test_a_listing_that_repeats_itself_is_ended(faulty_store: Store, faulty: FaultyS3) -> None:
    page = b"<ListBucketResult><Name>media</Name><IsTruncated>true</IsTruncated>%s</ListBucketResult>"
    faulty.plan(*[reply(200, page % b"<NextContinuationToken>t</NextContinuationToken>")] * 2, reply(200, page % b""))
    for _ in range(2):
        with pytest.raises(StorageError):
            assert [found async for found in faulty_store.list(faulty_store.prefix)] == []


async def test_downloads_that_nobody_takes_do_not_hold_up_uploads(config: Callable[..., StoreConfig]) -> None:
    async with Store("main", config(max_connections=3)) as store:
        key = await put(store, b"x" * 3_000_000)
        async with store.open(key), store.open(key):
            await store.put(f"{store.prefix}/other", [b"abc"], size_bytes=3, metadata={})

        assert await store.read(f"{store.prefix}/other", max_bytes=3) == b"abc"
