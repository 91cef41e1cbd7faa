"""Whatever S3 answers: bytes are right, or there is an error."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.storage.errors import StorageError
from mediarepo.storage.retry import RetryBudget, RetryPolicy
from mediarepo.storage.store import Store
from tests.support.hostile_s3 import SPOILS, HostileS3, content_of

_AT_ONCE = 16


class _Recording:
    def __init__(self) -> None:
        self.received = bytearray()

    async def write(self, data: bytes, /) -> None:
        self.received += data


async def _download(store: Store, number: int, chance: random.Random) -> str:
    content = content_of(number)
    span = None
    if chance.random() < 0.4:
        offset = chance.randrange(len(content))
        span = ByteRange(offset, chance.randrange(1, len(content) - offset + 1))
        content = content[span.offset : span.last + 1]
    sink = _Recording()
    try:
        async with store.open(f"{store.prefix}/{number}", span, known_bytes=len(content_of(number))) as stored:
            assert stored.size_bytes == len(content)
            await stored.send_to(sink)
    except StorageError:
        return "download broken off"
    assert sink.received == content, "wrong bytes"
    return "download"


async def _upload(store: Store, number: int, hostile: HostileS3) -> str:
    body = content_of(number)
    key = f"{store.prefix}/put-{number}"
    try:
        await store.put(key, [body[:10], memoryview(body)[10:]], size_bytes=len(body), metadata={})
    except StorageError:
        return "upload failed"
    assert hostile.stored[f"/media/{key}"] == body, "acknowledged, but not what was sent"
    return "upload"


@pytest.mark.parametrize("http_client", ["httptools", "aiohttp"])
@pytest.mark.parametrize("seed", range(4))
async def test_no_wrong_byte_in_2500_random_trials(config: Callable[..., StoreConfig], seed: int) -> None:
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()

    paused = 0.0

    async def no_pause(_: float) -> None:
        nonlocal paused
        paused += 0.1
        await asyncio.sleep(0)

    policy = RetryPolicy(budget=RetryBudget(1_000_000), sleep=no_pause, clock=lambda: paused)
    async with HostileS3(seed) as hostile:
        settings = config(endpoint_url=hostile.endpoint_url, bucket="media", read_timeout_ms=50)
        async with Store("main", settings, retrying=policy) as store:
            numbers = iter(range(2_500))

            async def work() -> None:
                for number in numbers:
                    uploads = chance.random() < 0.2
                    outcomes[
                        await (_upload(store, number, hostile) if uploads else _download(store, number, chance))
                    ] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(work())
            assert store.read_connections.in_use == store.write_connections.in_use == store.requests_under_way == 0

    assert outcomes.total() == 2_500
    assert min(outcomes["download"], outcomes["download broken off"], outcomes["upload"]) > 0
    assert {f"GET {spoil.__name__}" for spoil in SPOILS} <= set(hostile.spoiled)
