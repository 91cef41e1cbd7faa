from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import Installation, installed, settings_for


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    """An installation that a test has to itself; its grace is so short that everything is old at once."""
    async with installed(settings_for(postgres, s3, sweep={"grace_ms": 1000, "unknown_object_age_ms": 0})) as running:
        yield running
