import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mediarepo.config.storage import StoreConfig
from mediarepo.storage.errors import StoreMisconfiguredError
from mediarepo.storage.store import Store
from tests.support.faulty_s3 import FaultyS3


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
