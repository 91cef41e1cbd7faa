"""A real Postgres and a real S3 server for the whole session, and what may stand before and beside them."""

import base64
import datetime as dt
import ipaddress
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.homeserver import FakeHomeserver, fake_homeserver
from tests.support.idle import all_idle
from tests.support.s3_wire import S3Wire


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
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    public = certificate.public_bytes(pem)
    Path(f"{path}.crt").write_bytes(public)
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + public)
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
