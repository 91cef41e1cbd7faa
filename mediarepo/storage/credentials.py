"""Whose requests these are."""

from typing import Protocol

from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from mediarepo.config.storage import StoreConfig
from mediarepo.storage.errors import StorageUnavailableError, StoreMisconfiguredError
from mediarepo.storage.signing import Credentials


class CredentialSource(Protocol):
    """Knows the credentials of this moment."""

    async def current(self) -> Credentials:
        """Give the same object for as long as they are the same."""
        ...


class FixedCredentials:
    """Credentials from the configuration."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def current(self) -> Credentials:
        """Give what is configured."""
        return self._credentials


class FrozenCredentials(Protocol):
    """What botocore's credentials look like at one moment."""

    @property
    def access_key(self) -> str:
        """The access key."""
        ...

    @property
    def secret_key(self) -> str:
        """Its secret."""
        ...

    @property
    def token(self) -> str | None:
        """The session token of temporary credentials."""
        ...


class FoundCredentials(Protocol):
    """What botocore finds: renews itself when it must."""

    async def get_frozen_credentials(self) -> FrozenCredentials:
        """Give what is valid now."""
        ...


class EnvironmentCredentials:
    """Credentials found as the AWS tools find them (variables, roles, instance metadata), renewed before they end."""

    def __init__(self, found: FoundCredentials) -> None:
        self._found = found
        self._credentials = Credentials("", "")

    async def current(self) -> Credentials:
        """Give what is valid now; raises StorageUnavailableError when it cannot be renewed."""
        try:
            now = await self._found.get_frozen_credentials()
        except BotoCoreError as exc:
            raise StorageUnavailableError(f"the environment's access key cannot be renewed: {exc}") from exc
        credentials = Credentials(now.access_key, now.secret_key, now.token)
        if credentials != self._credentials:
            self._credentials = credentials
        return self._credentials


async def find_credentials(config: StoreConfig) -> CredentialSource:
    """Take the configured credentials, or look for some in the environment."""
    if config.access_key_id is not None and config.secret_access_key is not None:
        token = config.session_token
        return FixedCredentials(
            Credentials(
                config.access_key_id.get_secret_value(),
                config.secret_access_key.get_secret_value(),
                token.get_secret_value() if token is not None else None,
            )
        )
    try:
        found = await AioSession().get_credentials()
    except BotoCoreError as exc:
        raise StoreMisconfiguredError(f"the environment's access key cannot be found: {exc}") from exc
    if found is None:
        raise StoreMisconfiguredError("neither the configuration nor the environment has an access key for the store")
    return EnvironmentCredentials(found)
