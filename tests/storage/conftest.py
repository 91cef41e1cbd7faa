"""Stores before a real S3 server, with and without faults between."""

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import FaultyS3
from tests.support.pauses import Pauses


@pytest.fixture(params=["httptools", "aiohttp"])
def http_client(request: pytest.FixtureRequest) -> str:
    """Each test goes through both of the HTTP clients that transfer bytes."""
    return str(request.param)


@pytest.fixture
def config(s3: Any, http_client: str) -> Callable[..., StoreConfig]:
    """Makes configurations with a prefix that no other test has."""
    prefix = f"test-{uuid.uuid4().hex}"

    def make(**changes: Any) -> StoreConfig:
        settings: dict[str, Any] = {
            "endpoint_url": s3.endpoint_url,
            "region": s3.region,
            "bucket": s3.bucket,
            "prefix": prefix,
            "access_key_id": s3.access_key_id,
            "secret_access_key": s3.secret_access_key,
            "http_client": http_client,
        }
        return StoreConfig.model_validate(settings | changes)

    return make


@pytest.fixture
async def store(config: Callable[..., StoreConfig]) -> AsyncIterator[Store]:
    async with Store("main", config()) as store:
        yield store


@pytest.fixture
async def faulty(s3: Any) -> AsyncIterator[FaultyS3]:
    async with FaultyS3(s3.endpoint_url) as faulty:
        yield faulty


@pytest.fixture
def requests() -> list[tuple[str, str]]:
    """What the faulty store counted: names of requests and their outcomes."""
    return []


@pytest.fixture
def pauses() -> Pauses:
    """What the faulty store waited between attempts."""
    return Pauses()


@pytest.fixture
async def faulty_store(
    config: Callable[..., StoreConfig], faulty: FaultyS3, requests: list[tuple[str, str]], pauses: Pauses
) -> AsyncIterator[Store]:
    def note(operation: str, outcome: str, _seconds: float, _object_key: str | None) -> None:
        requests.append((operation, outcome))

    settings = config(endpoint_url=faulty.endpoint_url, read_timeout_ms=1_500, request_timeout_ms=20_000)
    async with Store("main", settings, on_request=note, retrying=pauses.policy()) as store:
        yield store
