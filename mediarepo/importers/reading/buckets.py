"""A bucket of somebody else, read with the storage room's own client."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from datetime import datetime

from pydantic import ValidationError

from mediarepo.config.storage import StoreConfig
from mediarepo.importers.errors import (
    BytesVanishedError,
    ListingRefusedError,
    SourceConfigError,
    SourceError,
    SourceUnavailableError,
)
from mediarepo.importers.reading.objects import BucketAddress, Page, StoredKey
from mediarepo.importers.reading.shelves import path_order
from mediarepo.storage.control import Answer, Control, refusal_of
from mediarepo.storage.credentials import CredentialSource, find_credentials
from mediarepo.storage.errors import ObjectMissingError, StorageError, StorageUnavailableError
from mediarepo.storage.explain import Place
from mediarepo.storage.retrying import Retrying
from mediarepo.storage.wire import Wire

_PIECE_BYTES = 256 * 1024
_CUSTOMER = "x-amz-server-side-encryption-customer"


class _EncryptedWire(Wire):
    """Sends the key of SSE-C with every request, which must be signed."""

    customer_headers: Mapping[str, str] = {}

    async def _headers(self, method: str, path: str, query: str, signed: Mapping[str, str]) -> dict[str, str]:
        return await super()._headers(method, path, query, {**signed, **self.customer_headers})


class Bucket:
    """An ObjectLister over the storage room; it connects when first asked."""

    def __init__(self, address: BucketAddress) -> None:
        self.lists = 0
        self.address = address
        self._config = _store_config(address)
        self.words = f"the bucket {address.bucket} at {self._config.endpoint_url}"
        self._place = Place(
            endpoint_url=self._config.endpoint_url, region=self._config.region, bucket=self._config.bucket
        )
        self._retrying = Retrying()
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._clients: tuple[Control, Wire] | None = None

    async def close(self) -> None:
        """Close every connection."""
        self._clients = None
        await self._stack.aclose()

    async def list(self, prefix: str, start_after: str | None = None) -> AsyncGenerator[StoredKey, None]:
        """Walk through objects in the order of keys."""
        following = {} if start_after is None else {"StartAfter": start_after}
        while True:
            page = await self._list_page(Prefix=prefix, **following)
            for found in page.get("Contents", ()):
                yield _stored_key(found)
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": str(page.get("NextContinuationToken", ""))}
            if not following["ContinuationToken"]:
                raise SourceError(f"{self.words} does not go on with its listing")

    async def page(self, prefix: str, start_after: str) -> Page:
        """List up to a thousand objects behind a key."""
        answer = await self._list_page(Prefix=prefix, StartAfter=start_after)
        objects = {stored.key: stored for stored in map(_stored_key, answer.get("Contents", ()))}
        is_last = not answer.get("IsTruncated") or not objects
        return Page(start_after, objects, None if is_last else max(objects, key=path_order))

    async def find(self, key: str) -> StoredKey | None:
        """Look for one object by a LIST, or where only GET is allowed, by a GET that is broken off."""
        try:
            page = await self._list_page(Prefix=key, MaxKeys=1)
        except ListingRefusedError:
            return await self._find_by_get(key)
        found = [_stored_key(one) for one in page.get("Contents", ())]
        return found[0] if found and found[0].key == key else None

    async def _find_by_get(self, key: str) -> StoredKey | None:
        _, wire = await self._opened()
        with self._translated():
            try:
                stored = await self._retrying.call(wire.get, key, None)
            except ObjectMissingError:
                return None
            stored.close()
        return StoredKey(key, stored.size_bytes, _etag(stored.etag))

    async def get(self, key: str, *, etag: str | None = None) -> AsyncGenerator[bytes, None]:
        """Read an object in small pieces."""
        async with aclosing(self._pieces(key, etag)) as pieces:
            with self._translated():
                async for piece in pieces:
                    yield piece

    async def _pieces(self, key: str, etag: str | None) -> AsyncGenerator[bytes, None]:
        _, wire = await self._opened()
        try:
            stored = await self._retrying.call(wire.get, key, None)
        except ObjectMissingError as exc:
            raise BytesVanishedError(f"{key} is gone from {self.words}") from exc
        try:
            if etag is not None and _etag(stored.etag) not in {etag, None}:
                raise BytesVanishedError(f"{key} is another object now than it was when it was found")
            while data := await stored.receive():
                for at in range(0, len(data), _PIECE_BYTES):
                    yield data[at : at + _PIECE_BYTES]
        finally:
            stored.close()

    async def _list_page(self, **parameters: str | int) -> Answer:
        control, _ = await self._opened()
        self.lists += 1
        with self._translated():
            try:
                return await self._retrying.call(control.list, "list", **parameters)
            except StorageUnavailableError as exc:
                if not _is_denied(exc):
                    raise
                raise ListingRefusedError(f"{self.words} cannot be listed: {exc}") from exc

    async def _opened(self) -> tuple[Control, Wire]:
        async with self._opening:
            if self._clients is None:
                with self._translated():
                    self._clients = await self._open(await find_credentials(self._config))
            return self._clients

    async def _open(self, credentials: CredentialSource) -> tuple[Control, Wire]:
        wire = _EncryptedWire(self._config, self._place, credentials, _not_counted)
        wire.customer_headers = _customer_headers(self.address)
        control = Control(self._config, self._place, credentials, _not_counted)
        return await self._stack.enter_async_context(control), await self._stack.enter_async_context(wire)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StorageUnavailableError as exc:
            raise SourceUnavailableError(str(exc)) from exc
        except StorageError as exc:
            raise SourceError(str(exc)) from exc


def _is_denied(exc: StorageUnavailableError) -> bool:
    """Tell a policy from all else that keeps a bucket from being listed, such as that there is no such bucket."""
    return hasattr(exc.__cause__, "response") and refusal_of(exc.__cause__).code in {"AccessDenied", "Forbidden"}


def _not_counted(_operation: str, _outcome: str) -> None:
    """Take note of nothing: the source's requests are not those of our stores."""


def _store_config(address: BucketAddress) -> StoreConfig:
    region = address.region or "us-east-1"
    try:
        return StoreConfig.model_validate(
            {
                "endpoint_url": address.endpoint_url or f"https://s3.{region}.amazonaws.com",
                "region": region,
                "bucket": address.bucket,
                "access_key_id": address.access_key_id,
                "secret_access_key": address.secret_access_key,
                "session_token": address.session_token,
                "path_style": address.path_style,
            }
        )
    except ValidationError as exc:
        raise SourceConfigError(f"the bucket {address.bucket} cannot be reached: {exc.errors()[0]['msg']}") from exc


def _customer_headers(address: BucketAddress) -> dict[str, str]:
    if address.customer_key is None:
        return {}
    key = address.customer_key.encode()
    digest = hashlib.md5(key, usedforsecurity=False).digest()
    return {
        f"{_CUSTOMER}-algorithm": address.customer_algorithm,
        f"{_CUSTOMER}-key": base64.b64encode(key).decode("ascii"),
        f"{_CUSTOMER}-key-md5": base64.b64encode(digest).decode("ascii"),
    }


def _stored_key(found: Answer) -> StoredKey:
    modified = found.get("LastModified")
    return StoredKey(
        key=found["Key"],
        size_bytes=found["Size"],
        etag=_etag(found.get("ETag")),
        modified_ts=int(modified.timestamp() * 1000) if isinstance(modified, datetime) else 0,
        storage_class=found.get("StorageClass", ""),
    )


def _etag(value: str | None) -> str | None:
    return None if value is None else value.removeprefix("W/").strip('"')
