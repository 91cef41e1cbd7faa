"""The look at what a server holds when nobody asks for anything must be able to fail."""

import re

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.idle import NotIdleError, idle
from tests.support.installation import installed, settings_for


async def test_what_leaks_is_named_with_its_value_and_its_idle_value(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with installed(settings_for(postgres, s3)) as running:
        repository = running.repository

        async def read() -> dict[str, float]:
            return repository.foundation.in_use.read()

        await idle(read)
        async with repository.memory.account(1000) as account:
            await account.reserve(1000)
            with pytest.raises(NotIdleError, match=re.escape("upload_memory_bytes is 1000, idle it is 0")):
                await idle(read, limit_s=0)
        async with repository.foundation.database.connection(), repository.pending.lease_holder.acquire("a"):
            with pytest.raises(NotIdleError, match=r"database_connections is .*, leases is 1, idle it is 0"):
                await idle(read, limit_s=0)
        await idle(read)


async def test_every_number_is_a_metric(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3)) as running:
        numbers = running.repository.foundation.in_use.read()
        text = (await running.get("/metrics", token=None)).body.decode()

    assert {
        "database_connections",
        "database_waiting",
        "image_processes",
        "picture_bytes",
        "preview_flights",
        "remote_fetches",
        "s3_read_connections",
        "s3_requests",
        "tee_memory_bytes",
        "upload_memory_bytes",
        "upload_memory_waiting",
    } <= set(numbers)
    assert all(f'mediarepo_in_use{{resource="{resource}"}}' in text for resource in numbers)
