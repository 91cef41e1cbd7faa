import os
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import MetadataRetrievalError

from mediarepo.config.storage import StoreConfig
from mediarepo.storage.errors import StorageUnavailableError, StoreMisconfiguredError
from mediarepo.storage.signing import EnvironmentCredentials
from mediarepo.storage.store import Store


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without AWS settings, in which no metadata service is asked."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


async def test_credentials_come_from_the_environment_when_none_are_configured(
    config: Callable[..., StoreConfig], environment: pytest.MonkeyPatch
) -> None:
    configured = config()
    assert configured.access_key_id is not None
    assert configured.secret_access_key is not None
    environment.setenv("AWS_ACCESS_KEY_ID", configured.access_key_id.get_secret_value())
    environment.setenv("AWS_SECRET_ACCESS_KEY", configured.secret_access_key.get_secret_value())
    async with Store("main", config(access_key_id=None, secret_access_key=None)) as store:
        await store.check()
        await store.put(f"{store.prefix}/a", [b"abc"], size_bytes=3, metadata={})
        assert await store.read(f"{store.prefix}/a", max_bytes=3) == b"abc"


@pytest.mark.usefixtures("environment")
async def test_a_store_without_any_credentials_does_not_open(config: Callable[..., StoreConfig]) -> None:
    with pytest.raises(StoreMisconfiguredError, match="neither the configuration nor the environment"):
        async with Store("main", config(access_key_id=None, secret_access_key=None)):
            pass


async def test_a_profile_that_is_not_there_is_explained(
    config: Callable[..., StoreConfig], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("AWS_PROFILE", "nobody")
    for changes in ({}, {"access_key_id": None, "secret_access_key": None}):
        with pytest.raises(StoreMisconfiguredError, match="nobody"):
            async with Store("main", config(**changes)):
                pass


class Frozen:
    def __init__(self, access_key: str) -> None:
        self.access_key = access_key
        self.secret_key = "secret"
        self.token = "token"


class Role:
    """Stands where the cloud's metadata service would."""

    def __init__(self, *answers: Frozen | Exception) -> None:
        self.answers = list(answers)

    async def get_frozen_credentials(self) -> Frozen:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_renewed_credentials_are_used_and_unchanged_ones_stay_the_same_object() -> None:
    source = EnvironmentCredentials(Role(Frozen("a"), Frozen("a"), Frozen("b")))
    first, second, third = [await source.current() for _ in range(3)]
    assert first is second
    assert third.access_key_id == "b"


async def test_credentials_that_cannot_be_renewed_are_an_outage() -> None:
    source = EnvironmentCredentials(Role(MetadataRetrievalError(error_msg="silent")))
    with pytest.raises(StorageUnavailableError, match="cannot be renewed"):
        await source.current()
