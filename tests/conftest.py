"""A real Postgres and a real S3 server for the whole session."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweed import EmbeddedS3


@pytest.fixture(scope="session")
def data_folder() -> Iterator[Path]:
    """A folder with a short path, since a unix socket lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="mediarepo-tests-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres(data_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(data_folder / "postgres", durable=False) as running:
        yield running


@pytest.fixture(scope="session")
async def s3(data_folder: Path) -> AsyncIterator[EmbeddedS3]:
    async with EmbeddedS3(data_folder / "s3", durable=False) as running:
        yield running
