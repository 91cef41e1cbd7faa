"""A real Postgres and a real S3 server for the whole session, and what may stand before and beside them."""

import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.telemetry import logs
from tests.support.certificates import self_signed, signing_key
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.idle import all_idle
from tests.support.s3_wire import S3Wire

settings.register_profile("any pace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any pace")


@pytest.fixture(autouse=True)
def _own_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command run in this process does to the logs: it would write to what was captured of its test."""
    monkeypatch.setattr(logs, "_CACHE_LOGGERS", False)
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers = [one for one in root.handlers if type(one) is not logging.StreamHandler]


@pytest.fixture(autouse=True)
async def everything_comes_back() -> AsyncIterator[None]:
    """After every test, servers that go on running hold nothing."""
    yield
    await all_idle()


@pytest.fixture(scope="session")
def data_folder() -> Iterator[Path]:
    """A folder with a short path, for a unix socket; another user may pass through it, as Postgres' may have to."""
    folder = Path(tempfile.mkdtemp(prefix="mediarepo-tests-"))
    folder.chmod(0o711)
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


@pytest.fixture
async def s3_wire(s3: EmbeddedS3) -> AsyncIterator[S3Wire]:
    """A door before the S3 server; its credentials and bucket are the server's own."""
    async with S3Wire(s3.endpoint_url) as wire:
        yield wire


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, with its key in the same file; alone, it is `{path}.crt`."""
    return self_signed(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture(scope="session")
def signing_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A homeserver's signing key, as Synapse keeps it."""
    return signing_key(tmp_path_factory.mktemp("keys") / "signing.key")


@pytest.fixture
async def homeserver() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as running:
        yield running
