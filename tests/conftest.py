"""A real Postgres and a real S3 server for the whole session, and what may stand before and beside them."""

import base64
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweed import EmbeddedS3
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.s3_wire import S3Wire


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
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=server"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command.split(), *names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture(scope="session")
def signing_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A homeserver's signing key, as Synapse keeps it."""
    path = tmp_path_factory.mktemp("keys") / "signing.key"
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    path.write_text(f"ed25519 a_test {seed}\n")
    return path


@pytest.fixture
async def homeserver() -> AsyncIterator[FakeHomeserver]:
    async with fake_homeserver() as running:
        yield running
