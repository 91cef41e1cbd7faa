"""AWS Signature Version 4, credentials and presigned URLs, as pure functions of the request."""

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from mediarepo.config.base import Secret
from mediarepo.config.storage import StoreConfig
from mediarepo.storage.errors import StorageUnavailableError, StoreMisconfiguredError

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key with its secret; `session_token` when they are temporary."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@lru_cache(maxsize=2)
def amz_date(now_s: int) -> str:
    """Format a Unix time in seconds as x-amz-date: 20150830T123600Z."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))


def quote_key(object_key: str) -> str:
    """Encode a key once, slashes kept: both the path that is sent and the one that is signed."""
    return quote(object_key, safe="/-_.~")


def canonical_query(pairs: Iterable[tuple[str, str]]) -> str:
    """Encode and sort query parameters, as they are signed and may be sent."""
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


class Signer:
    """Signs requests of one access key to one service of one region; keeps the day's signing key."""

    def __init__(self, credentials: Credentials, region: str, service: str = "s3") -> None:
        self.credentials = credentials
        self._scope_end = f"/{region}/{service}/aws4_request"
        self._key_parts = (region, service, "aws4_request")
        self._day = ""
        self._day_key = b""

    def authorization(
        self, method: str, path: str, query: str, *, headers: Sequence[tuple[str, str]], payload_hash: str, date: str
    ) -> str:
        """Return the Authorization header's value.

        `path` and `query` are encoded as sent (`quote_key`, `canonical_query`); `headers` are those to be signed: names
        in lower case and ascending order, values trimmed, host and x-amz-date among them; `date` is `amz_date`.
        """
        names = ";".join([name for name, _ in headers])
        signature = self.signature(method, path, query, headers=headers, payload_hash=payload_hash, date=date)
        key_id = self.credentials.access_key_id
        return f"{_ALGORITHM} Credential={key_id}/{self.scope(date)}, SignedHeaders={names}, Signature={signature}"

    def scope(self, date: str) -> str:
        """Name the day, region and service that a signature is good for."""
        return date[:8] + self._scope_end

    def signature(
        self, method: str, path: str, query: str, *, headers: Sequence[tuple[str, str]], payload_hash: str, date: str
    ) -> str:
        """Sign a request, described as for `authorization`; gives hexadecimal digits."""
        names = ";".join([name for name, _ in headers])
        lines = "".join([f"{name}:{value}\n" for name, value in headers])
        request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_hash}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = f"{_ALGORITHM}\n{date}\n{self.scope(date)}\n{digest}"
        return hmac.digest(self._key_of(date[:8]), to_sign.encode(), "sha256").hex()

    def _key_of(self, day: str) -> bytes:
        if day == self._day:
            return self._day_key
        key = f"AWS4{self.credentials.secret_access_key}".encode()
        for part in (day, *self._key_parts):
            key = hmac.digest(key, part.encode(), "sha256")
        self._day, self._day_key = day, key
        return key


class CredentialSource(Protocol):
    """Knows the credentials of this moment."""

    async def current(self) -> Credentials:
        """Give the same object for as long as they are the same."""
        ...


class FixedCredentials:
    """Credentials from the configuration, as it is now."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._credentials = _configured(config)

    async def current(self) -> Credentials:
        """Give what is configured."""
        credentials = _configured(self._config)
        if credentials != self._credentials:
            self._credentials = credentials
        return self._credentials


def _configured(config: StoreConfig) -> Credentials:
    def text(secret: Secret | None) -> str | None:
        return secret.get_secret_value() if secret is not None else None

    return Credentials(
        text(config.access_key_id) or "", text(config.secret_access_key) or "", text(config.session_token)
    )


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
    """Return the configured credentials, or those of the environment.

    Raises StoreMisconfiguredError when there are none.
    """
    if config.access_key_id is not None and config.secret_access_key is not None:
        return FixedCredentials(config)
    try:
        found = await AioSession().get_credentials()
    except BotoCoreError as exc:
        raise StoreMisconfiguredError(f"the environment's access key cannot be found: {exc}") from exc
    if found is None:
        raise StoreMisconfiguredError("neither the configuration nor the environment has an access key for the store")
    return EnvironmentCredentials(found)


def presigned_query(
    signer: Signer, *, path: str, host: str, lifetime_s: int, date: str, overrides: Mapping[str, str]
) -> str:
    """Sign a GET for `lifetime_s` seconds; `overrides` are response headers, as in response-content-type."""
    credentials = signer.credentials
    fields = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{signer.scope(date)}",
        "X-Amz-Date": date,
        "X-Amz-Expires": str(lifetime_s),
        "X-Amz-SignedHeaders": "host",
        **overrides,
    }
    if credentials.session_token is not None:
        fields["X-Amz-Security-Token"] = credentials.session_token
    query = canonical_query(fields.items())
    signature = signer.signature("GET", path, query, headers=[("host", host)], payload_hash=UNSIGNED_PAYLOAD, date=date)
    return f"{query}&X-Amz-Signature={signature}"
