"""A source's bucket, read with our own S3 client."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import ValidationError

from mediarepo.config.storage import StoreConfig
from mediarepo.importers.errors import (
    BytesVanishedError,
    ListingRefusedError,
    SourceConfigError,
    SourceError,
    SourceUnavailableError,
)
from mediarepo.importers.readers.byte_source import ListedFile, SourceProblem, path_order
from mediarepo.model.import_source import ObjectBytes, ResolutionState, SourceBytes
from mediarepo.storage.control import Answer, ObjectControl, error_response_of
from mediarepo.storage.errors import ObjectMissingError, S3Location, StorageError, StorageUnavailableError
from mediarepo.storage.retry import RetryPolicy
from mediarepo.storage.s3_client import S3Client
from mediarepo.storage.signing import CredentialSource, find_credentials

_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketAddress:
    """A bucket's address; without `endpoint_url` it is Amazon's, without keys they come from the environment.

    `customer_key` is the key of encrypted objects (SSE-C), sent with every GET.
    """

    bucket: str
    region: str | None = None
    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    customer_key: str | None = field(default=None, repr=False)
    customer_algorithm: str = "AES256"
    path_style: bool = True


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An object of a LIST; `etag` without quotes, `modified_ts` in ms."""

    key: str
    size_bytes: int
    etag: str | None
    modified_ts: int = 0
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The objects after a key, up to `end`, or all."""

    start_after: str
    objects: dict[str, StoredKey]
    end: str | None

    def covers(self, key: str) -> bool:
        """Return whether an object of this key would be in the page."""
        wanted, start = path_order(key), path_order(self.start_after)
        return start < wanted and (self.end is None or wanted <= path_order(self.end))


class ObjectLister(Protocol):
    """A read-only bucket. Methods raise SourceUnavailableError during outages, else SourceError."""

    address: BucketAddress
    words: str
    lists: int

    def list(self, prefix: str, start_after: str | None = None) -> AsyncGenerator[StoredKey, None]:
        """Iterate over objects with a key prefix, in the order of keys, after `start_after`."""
        ...

    async def page(self, prefix: str, start_after: str) -> Page:
        """List up to a thousand objects. Raises ListingRefusedError where that is not allowed."""
        ...

    async def find(self, key: str) -> StoredKey | None:
        """Look up one object; None only when the bucket answers that there is none."""
        ...

    def get(self, key: str, *, etag: str | None = None) -> AsyncGenerator[bytes, None]:
        """Read an object in pieces. Raises BytesVanishedError when it is gone, or its ETag changed."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class BucketByteSource:
    """Objects of a bucket; a key is `prefix` and the path, with no slash added."""

    def __init__(self, name: str, objects: ObjectLister, *, prefix: str) -> None:
        self.name = name
        self.words = f"{objects.words} under {prefix!r}"
        self.notes: list[str] = []
        self.has_costly_looks = True
        self.address = objects.address
        self._objects = objects
        self._prefix = prefix
        self._page: Page | None = None

    async def close(self) -> None:
        """Close all connections."""
        await self._objects.close()

    @property
    def lists(self) -> int:
        """How many LIST requests were made."""
        return self._objects.lists

    async def check(self) -> str | None:
        """Return why the bucket cannot be read; None when it can."""
        try:
            await self._objects.find(f"{self._prefix}local_content/")
        except SourceError as exc:
            return f"{self.words} cannot be read: {exc}"
        return None

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up an object."""
        try:
            stored = await self._objects.find(self._prefix + path)
        except SourceError as exc:
            return SourceProblem(ResolutionState.UNREADABLE, f"{self.words}: {exc}")
        return None if stored is None else _trouble(stored) or self._found(stored)

    async def find_near(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up an object in the last listed page, or in one that begins with it."""
        key = self._prefix + path
        try:
            if self._page is None or not self._page.covers(key):
                self._page = await self._objects.page(self._prefix, key[:-1])
            page = self._page
        except ListingRefusedError:
            return await self.find(path)
        except SourceError as exc:
            return SourceProblem(ResolutionState.UNREADABLE, f"{self.words}: {exc}")
        if not page.covers(key):
            return await self.find(path)
        stored = page.objects.get(key)
        return None if stored is None else _trouble(stored) or self._found(stored)

    async def walk(self, under: str) -> AsyncGenerator[ListedFile, None]:
        """Iterate over objects, a thousand with one request; where listing is refused, `find` must do."""
        try:
            async for stored in self._objects.list(self._prefix + under):
                path = stored.key.removeprefix(self._prefix)
                yield ListedFile(path, self._found(stored), stored.modified_ts, _trouble(stored))
        except ListingRefusedError as exc:
            self.has_costly_looks = False
            self.notes.append(f"{exc}: objects are looked up one by one, and unclaimed ones are not reported")

    def _found(self, stored: StoredKey) -> ObjectBytes:
        return ObjectBytes(self.name, self.address.bucket, stored.key, stored.size_bytes, stored.etag)

    async def read(self, found: SourceBytes) -> bytes:
        """Read an object at once."""
        return b"".join([piece async for piece in self.open(found)])

    async def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read an object in pieces.

        Raises BytesVanishedError when it is not as long as it was, SourceError when it is no object.
        """
        if not isinstance(found, ObjectBytes):
            raise SourceError(f"{found} is no object")
        read = 0
        async for piece in self._objects.get(found.object_key, etag=found.etag):
            read += len(piece)
            yield piece
        if read != found.size_bytes:
            raise BytesVanishedError(f"{found.object_key} had {found.size_bytes} bytes, and {read} could be read")


def _trouble(stored: StoredKey) -> SourceProblem | None:
    if stored.storage_class not in _ARCHIVED:
        return None
    words = f"{stored.key} was archived ({stored.storage_class}) and must be restored first"
    return SourceProblem(ResolutionState.UNREADABLE, words)


_PIECE_BYTES = 256 * 1024
_CUSTOMER = "x-amz-server-side-encryption-customer"


class _EncryptedWire(S3Client):
    """Sends the key of SSE-C with every request, which must be signed."""

    customer_headers: Mapping[str, str] = {}

    async def _headers(self, method: str, path: str, query: str, signed: Mapping[str, str]) -> dict[str, str]:
        return await super()._headers(method, path, query, {**signed, **self.customer_headers})


class Bucket:
    """An ObjectLister over our own S3 client; it connects at first use."""

    def __init__(self, address: BucketAddress, *, retrying: RetryPolicy | None = None) -> None:
        self.lists = 0
        self.address = address
        self._config = store_config(address)
        self.words = f"the bucket {address.bucket} at {self._config.endpoint_url}"
        self._place = S3Location(
            endpoint_url=self._config.endpoint_url, region=self._config.region, bucket=self._config.bucket
        )
        self._retrying = RetryPolicy() if retrying is None else retrying
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._clients: tuple[ObjectControl, S3Client] | None = None

    async def close(self) -> None:
        """Close every connection."""
        self._clients = None
        await self._stack.aclose()

    async def list(self, prefix: str, start_after: str | None = None) -> AsyncGenerator[StoredKey, None]:
        """List objects in the order of their keys. Raises SourceError when the listing cannot be continued."""
        following = {} if start_after is None else {"StartAfter": start_after}
        while True:
            page = await self._list_page(Prefix=prefix, **following)
            for found in page.get("Contents", ()):
                yield _stored_key(found)
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": str(page.get("NextContinuationToken", ""))}
            if not following["ContinuationToken"]:
                raise SourceError(f"{self.words} ends its listing early")

    async def page(self, prefix: str, start_after: str) -> Page:
        """List up to a thousand objects after a key."""
        answer = await self._list_page(Prefix=prefix, StartAfter=start_after)
        objects = {stored.key: stored for stored in map(_stored_key, answer.get("Contents", ()))}
        is_last = not answer.get("IsTruncated") or not objects
        return Page(start_after, objects, None if is_last else max(objects, key=path_order))

    async def find(self, key: str) -> StoredKey | None:
        """Look up one object by LIST, or where only GET is allowed, by a cancelled GET."""
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
        """Read an object in pieces."""
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

    async def _opened(self) -> tuple[ObjectControl, S3Client]:
        async with self._opening:
            if self._clients is None:
                with self._translated():
                    self._clients = await self._open(await find_credentials(self._config))
            return self._clients

    async def _open(self, credentials: CredentialSource) -> tuple[ObjectControl, S3Client]:
        wire = _EncryptedWire(self._config, self._place, credentials, _not_counted, self._retrying)
        wire.customer_headers = _customer_headers(self.address)
        control = ObjectControl(self._config, self._place, credentials, _not_counted)
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
    return hasattr(exc.__cause__, "response") and error_response_of(exc.__cause__).code in {"AccessDenied", "Forbidden"}


def _not_counted(_operation: str, _outcome: str, _seconds: float, _object_key: str | None) -> None:
    """Take note of nothing: the source's requests are not those of our stores."""


def store_config(address: BucketAddress) -> StoreConfig:
    """Return the settings of an S3 client for a bucket. Raises SourceConfigError when they are invalid."""
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
