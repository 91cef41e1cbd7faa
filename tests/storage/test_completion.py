from typing import Any

import pytest

from mediarepo.storage.errors import StorageError, StorageUnavailableError
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import FaultyS3, hang_up, lose_answer, reply, stay_silent

SLOW_DOWN = reply(503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
INTERNAL_IN_200 = reply(200, b"<Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>")
NO_SUCH_UPLOAD = reply(404, b"<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>")


async def begin(store: Store) -> tuple[str, str, list[str]]:
    key = f"{store.prefix}/local/a"
    upload_id = await store.begin_multipart(key, metadata={})
    return key, upload_id, [await store.put_part(key, upload_id, 1, [b"abc"], size_bytes=3)]


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
    assert await faulty_store.read(key, max_bytes=3) == b"abc"


async def test_a_part_that_is_not_there_is_an_error(store: Store) -> None:
    key, upload_id, _ = await begin(store)
    with pytest.raises(StorageError, match="has lost one"):
        await store.complete_multipart(key, upload_id, ['"0"'], size_bytes=3)


async def test_completion_that_keeps_failing_in_its_body_is_an_outage(faulty_store: Store, faulty: FaultyS3) -> None:
    key, upload_id, etags = await begin(faulty_store)
    faulty.plan(*[INTERNAL_IN_200] * 20)
    with pytest.raises(StorageUnavailableError):
        await faulty_store.complete_multipart(key, upload_id, etags, size_bytes=3)
