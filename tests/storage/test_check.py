from collections.abc import Callable
from typing import Any

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.storage.errors import StorageUnavailableError, StoreMisconfiguredError
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import FaultyS3, hang_up, reply, stay_silent

WRONG_REGION = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>garage</Region></Error>"


async def test_a_good_configuration_passes(faulty_store: Store, faulty: FaultyS3) -> None:
    await faulty_store.check()
    assert len(faulty.seen) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bucket": "no-such-bucket"}, "there is no bucket no-such-bucket"),
        ({"access_key_id": "stranger"}, "does not know access_key_id"),
        ({"secret_access_key": "wrong"}, "secret_access_key does not belong to access_key_id"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "nothing listens there"),
        ({"endpoint_url": "http://mediarepo.invalid"}, "its host name does not resolve"),
    ],
)
async def test_a_bad_configuration_is_explained(
    config: Callable[..., StoreConfig], changes: dict[str, Any], words: str
) -> None:
    settings = config(**changes)
    async with Store("main", settings) as store:
        with pytest.raises(StoreMisconfiguredError) as caught:
            await store.check()
        with pytest.raises(StorageUnavailableError) as unavailable:
            async with store.open(f"{store.prefix}/a"):
                pass
    assert str(caught.value).startswith("store main: ")
    assert words in str(caught.value)
    assert words in str(unavailable.value)


async def test_tls_that_is_none_is_explained(config: Callable[..., StoreConfig]) -> None:
    plain = config().endpoint_url
    async with Store("main", config(endpoint_url=plain.replace("http:", "https:"))) as store:
        with pytest.raises(StoreMisconfiguredError, match="does not speak TLS"):
            await store.check()


async def test_a_wrong_region_is_told_not_followed(faulty_store: Store, faulty: FaultyS3) -> None:
    faulty.plan(reply(400, WRONG_REGION))
    with pytest.raises(StoreMisconfiguredError, match="expects region garage, you sent us-east-1"):
        await faulty_store.check()
    assert len(faulty.seen) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(200, b"<!DOCTYPE html><html><body>Hi<br></body></html>"), "is no S3 server"),
        (reply(200, b"<html><body>Hi</body></html>"), "is not an S3 server"),
        (reply(502, b"<html><body>Hi</body></html>"), "it or its proxy is in trouble"),
        (reply(200, b"<feed><title>Hi</title></feed>"), "is not an S3 server"),
        (reply(404, b"<html><body>Hi</body></html>"), "does not answer like an S3 server"),
        (reply(404, b"404 page not found"), "does not answer like an S3 server"),
        (reply(200, b'{"hello": "world"}'), "is no S3 server"),
        (stay_silent, "did not answer in time"),
    ],
)
async def test_what_is_no_s3_server_is_told(faulty_store: Store, faulty: FaultyS3, answer: Any, words: str) -> None:
    faulty.plan(*[answer] * 20)
    with pytest.raises(StoreMisconfiguredError, match=words):
        await faulty_store.check()


async def test_a_moment_of_trouble_is_no_misconfiguration(faulty_store: Store, faulty: FaultyS3) -> None:
    faulty.plan(hang_up, reply(503, b"<Error><Code>SlowDown</Code></Error>"))
    await faulty_store.check()
    assert len(faulty.seen) == 3
