import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from mediarepo.model.spans import Span
from mediarepo.storage.errors import ObjectMissingError, StorageError, StorageUnavailableError
from mediarepo.storage.store import Store
from tests.storage.faulty_s3 import FaultyS3, forward, hang_up, lose_answer, reply, stall, stay_silent, truncate

Requests = list[tuple[str, str]]
SLOW_DOWN = reply(503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
INTERNAL_IN_200 = reply(200, b"<Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>")
NO_SUCH_UPLOAD = reply(404, b"<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>")
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


async def begin(store: Store) -> tuple[str, str, list[str]]:
    key = f"{store.prefix}/local/a"
    upload_id = await store.begin_multipart(key, metadata={})
    return key, upload_id, [await store.put_part(key, upload_id, 1, [b"abc"], size_bytes=3)]


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


async def test_lasting_trouble_is_an_outage_with_a_hint(faulty_store: Store, faulty: FaultyS3) -> None:
    faulty.plan(SLOW_DOWN, SLOW_DOWN, SLOW_DOWN)
    with pytest.raises(StorageUnavailableError, match="fewer requests") as caught:
        await put(faulty_store)
    assert caught.value.retry_after_s is not None
    assert len(faulty.seen) == 3


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
async def test_a_body_that_ends_early_is_an_error(
    faulty_store: Store, faulty: FaultyS3, cut: Callable[[int], Any], come: int
) -> None:
    key = await put(faulty_store, b"x" * 10_000)
    sink = Recording()
    faulty.plan(cut(come))
    async with faulty_store.open(key) as stored:
        with pytest.raises(StorageUnavailableError):
            await stored.send_to(sink)
    assert sink.size_bytes == come


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
    connector = store._wire._session.connector
    assert connector is not None
    assert not connector._acquired
    assert not any(connector._conns.values())


async def test_a_span_the_server_ignores_is_an_error(faulty_store: Store, faulty: FaultyS3) -> None:
    faulty.plan(reply(200, b"abc"), reply(206, b"a", headers="Content-Range: bytes 0-0/3\r\n"))
    for _ in range(2):
        with pytest.raises(StorageError):
            async with faulty_store.open(f"{faulty_store.prefix}/a", Span(1, 1)):
                pass


@pytest.mark.parametrize("trouble", [lose_answer, hang_up, SLOW_DOWN, INTERNAL_IN_200])
async def test_an_object_is_completed_although_an_answer_was_lost(
    faulty_store: Store, faulty: FaultyS3, trouble: Any
) -> None:
    key, upload_id, etags = await begin(faulty_store)
    faulty.plan(trouble)
    await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=3)
    assert await faulty_store.read(key, max_bytes=3) == b"abc"


async def test_an_upload_that_is_gone_because_it_was_completed_is_complete(
    faulty_store: Store, faulty: FaultyS3
) -> None:
    key, upload_id, etags = await begin(faulty_store)
    faulty.plan(lose_answer, NO_SUCH_UPLOAD)
    await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=3)
    assert [seen.method for seen in faulty.seen][-3:] == ["POST", "POST", "HEAD"]


async def test_a_slow_completion_is_asked_for_again(faulty_store: Store, faulty: FaultyS3) -> None:
    key, upload_id, etags = await begin(faulty_store)
    faulty.plan(stay_silent)
    await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=3)
    assert await faulty_store.read(key, max_bytes=3) == b"abc"


async def test_an_upload_that_is_gone_without_its_object_is_an_error(faulty_store: Store, faulty: FaultyS3) -> None:
    key, upload_id, etags = await begin(faulty_store)
    await faulty_store.abort_multipart(key, upload_id)
    with pytest.raises(StorageError, match="is gone"):
        await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=3)
    assert faulty.seen[-1].method == "HEAD"


async def test_an_object_of_another_size_is_not_taken_for_the_upload(faulty_store: Store, faulty: FaultyS3) -> None:
    key, upload_id, etags = await begin(faulty_store)
    faulty.plan(lose_answer, NO_SUCH_UPLOAD)
    with pytest.raises(StorageError, match="is gone"):
        await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=4)


async def test_an_object_that_is_there_counts_more_than_the_answers(faulty_store: Store, faulty: FaultyS3) -> None:
    key, upload_id, etags = await begin(faulty_store)
    faulty.plan(lose_answer, hang_up, reply(400, b"<Error><Code>InvalidPart</Code></Error>"))
    await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=3)


async def test_a_part_that_is_not_there_is_an_error(store: Store) -> None:
    key, upload_id, _ = await begin(store)
    with pytest.raises(StorageError, match="InvalidPart"):
        await store.complete_multipart(key, upload_id, ['"0"'], size_bytes=3)


async def test_completion_that_keeps_failing_in_its_body_is_an_outage(faulty_store: Store, faulty: FaultyS3) -> None:
    key, upload_id, etags = await begin(faulty_store)
    faulty.plan(INTERNAL_IN_200, INTERNAL_IN_200, INTERNAL_IN_200)
    with pytest.raises(StorageUnavailableError):
        await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=3)


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
