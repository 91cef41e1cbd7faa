import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mediarepo.config.stores import StoreConfig
from mediarepo.storage.errors import StoreMisconfiguredError
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import FaultyS3


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody trusts, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "s3.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=s3"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
async def tls_s3(s3: Any, certificate: Path) -> AsyncIterator[FaultyS3]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with FaultyS3(s3.endpoint_url, tls=context) as tls_s3:
        yield tls_s3


async def test_a_certificate_of_ones_own_is_trusted_when_configured(
    config: Callable[..., StoreConfig], tls_s3: FaultyS3, certificate: Path
) -> None:
    settings = config(endpoint_url=tls_s3.endpoint_url, ca_file=f"{certificate}.crt")
    async with Store("main", settings) as store:
        await store.check()
        await store.put(f"{store.prefix}/a", [b"abc"], size_bytes=3, metadata={})
        assert await store.read(f"{store.prefix}/a", max_bytes=3) == b"abc"


async def test_a_certificate_nobody_trusts_is_explained(config: Callable[..., StoreConfig], tls_s3: FaultyS3) -> None:
    async with Store("main", config(endpoint_url=tls_s3.endpoint_url)) as store:
        with pytest.raises(StoreMisconfiguredError, match=r"certificate is not trusted .*set ca_file"):
            await store.check()


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_explained(
    config: Callable[..., StoreConfig], tls_s3: FaultyS3, tmp_path: Path, content: str | None
) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with pytest.raises(StoreMisconfiguredError, match=r"ca_file .* cannot be used"):
        async with Store("main", config(endpoint_url=tls_s3.endpoint_url, ca_file=str(ca_file))):
            pass
