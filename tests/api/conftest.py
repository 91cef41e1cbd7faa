from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import Installation, installed, settings_for


@pytest.fixture(scope="session")
async def shared(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    """One installation for all tests that only read and add."""
    async with installed(settings_for(postgres, s3, uploads={"max_bytes": 30_000_000})) as running:
        yield running
