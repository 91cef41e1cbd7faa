"""One bucket and prefix."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import unquote

import structlog

from mediarepo.config.storage import StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.concurrency import task_group
from mediarepo.model.media import StoreClass
from mediarepo.storage.control import Answer, CopySource, ObjectControl, ObjectFacts
from mediarepo.storage.errors import (
    OnRequest,
    S3Location,
    StorageError,
    StorageUnavailableError,
    StoreMisconfiguredError,
    UnknownLengthError,
    UnsupportedRequestError,
    UploadGoneError,
)
from mediarepo.storage.read_connections import ReadConnections
from mediarepo.storage.retry import RetryBudget, RetryPolicy, is_lost_answer
from mediarepo.storage.s3_client import S3Client, encode_metadata, metadata_headers
from mediarepo.storage.signing import find_credentials
from mediarepo.storage.stored_object import OpenObject, StoredObject
from mediarepo.storage.transport import Transport
from mediarepo.storage.write_gate import WriteGate

log = structlog.get_logger(__name__)

_CHECK_S = 0.5
_DELETE_BATCH = 1000  # API reference: DeleteObjects
_DELETES_AT_ONCE = 8
_BULK_DELETE_AGAIN_S = 3600
"""How long a server that has no DeleteObjects is not asked for it again."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object that is in the bucket; `etag` without quotes."""

    key: str
    size_bytes: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class ListedMultipart:
    """A multipart upload that was begun, neither completed nor aborted."""

    key: str
    upload_id: str


def _not_counted(_operation: str, _outcome: str, _seconds: float, _object_key: str | None) -> None:
    """Take note of nothing."""


class Store:
    """Objects under one prefix of one bucket; open it before use, with `async with`.

    Object keys are whole keys, prefix included. Every method raises StorageUnavailableError during an outage and
    StorageError for what no retry mends. `on_request` hears of every request: see `OnRequest`.
    """

    def __init__(
        self,
        name: str,
        config: StoreConfig,
        *,
        on_request: OnRequest = _not_counted,
        retrying: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self.prefix = config.prefix
        self._media_folders = tuple(f"{config.prefix}/{one}/" for one in StoreClass)
        self.read_only = config.read_only
        self.bucket = config.bucket
        self._config = config
        self._on_request = on_request
        self.retry_budget = RetryBudget(config.retry_budget)
        self._retrying = retrying or RetryPolicy(timeout_s=config.retry_timeout_ms / 1000, budget=self.retry_budget)
        self._checking = self._retrying.limited_to(_CHECK_S)  # who asks whether we are ready does not wait long
        self._stack = AsyncExitStack()
        self._bulk_delete_again = 0.0
        self._writes = WriteGate(name)

    async def __aenter__(self) -> Self:
        config = self._config
        place = S3Location(endpoint_url=config.endpoint_url, region=config.region, bucket=config.bucket)
        credentials = await find_credentials(config)
        async with AsyncExitStack() as opening:
            wire = S3Client(config, place, credentials, self._on_request, self._retrying)
            control = ObjectControl(config, place, credentials, self._on_request)
            self._wire = await opening.enter_async_context(wire)
            self._control = await opening.enter_async_context(control)
            self._stack = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def renew_credentials(self) -> None:
        """Take the configured access key over as it is now."""
        await self._control.renew()

    async def check(self) -> None:
        """Make sure that the bucket answers; raises StoreMisconfiguredError in the operator's words."""
        try:
            page = await self._checking.call(self._control.list, "check", Prefix=f"{self.prefix}/", MaxKeys=1)
        except StorageError as exc:
            raise StoreMisconfiguredError(f"store {self.name}: {exc}") from exc
        if "Name" not in page:
            raise StoreMisconfiguredError(f"store {self.name}: {self._config.endpoint_url} is not an S3 server")

    async def put(
        self, object_key: str, chunks: Sequence[bytes | memoryview], *, size_bytes: int, metadata: Mapping[str, str]
    ) -> None:
        """Store an object whole, with one PUT; once more when that fails, so the key must be nobody else's."""
        self._check_ours(object_key)
        headers, storage_class = metadata_headers(metadata), self._storage_class(object_key)
        if storage_class is not None:
            headers["x-amz-storage-class"] = storage_class
        with self._writes.writing():
            await self._retrying.call(self._wire.put, object_key, chunks, size_bytes=size_bytes, headers=headers)

    def open(
        self, object_key: str, byte_range: ByteRange | None = None, *, known_bytes: int | None = None
    ) -> OpenObject:
        """Ask for an object, or for a span that must lie within it; S3 has answered when entered.

        `known_bytes` is the whole object's size, if that is known: some servers answer without a length. Raises
        ObjectMissingError. Leaving early closes the connection.
        """
        return OpenObject(self._get(object_key, byte_range, known_bytes))

    @property
    def write_refusal(self) -> str | None:
        """Why the store takes no new objects, in the operator's words; None while it does."""
        return self._writes.reason

    def check_takes_writes(self) -> None:
        """Raise StorageRefusesWritesError while the store takes no new objects; now and then somebody may try."""
        self._writes.check()

    @property
    def requests_under_way(self) -> int:
        """How many requests S3 has not answered yet."""
        return self._wire.under_way + self._control.under_way

    @property
    def read_connections(self) -> ReadConnections:
        """The connections that downloads share."""
        return self._wire.connections

    @property
    def write_connections(self) -> Transport:
        """The connections that uploads share; `in_use` is how many are taken."""
        return self._wire.writing

    async def _get(self, object_key: str, byte_range: ByteRange | None, known_bytes: int | None) -> StoredObject:
        try:
            return await self._retrying.call(self._wire.get, object_key, byte_range, known_bytes)
        except UnknownLengthError:
            asked_bytes = await self.size_of(object_key) if known_bytes is None else None
            if asked_bytes is None:
                raise
        return await self._retrying.call(self._wire.get, object_key, byte_range, asked_bytes)

    async def presign(
        self, object_key: str, *, lifetime_s: int, content_type: str, content_disposition: str, window_s: int = 1
    ) -> str:
        """Make a URL at which S3 itself gives out an object, with these response headers, for `lifetime_s` seconds.

        It stays the same within each `window_s` seconds.
        """
        overrides = {"response-content-type": content_type, "response-content-disposition": content_disposition}
        return await self._wire.presign(object_key, lifetime_s=lifetime_s, overrides=overrides, window_s=window_s)

    async def read(self, object_key: str, *, max_bytes: int) -> bytes:
        """Read a small object whole; raises StorageError when it is larger than `max_bytes`."""
        async with self.open(object_key) as stored:
            if stored.size_bytes > max_bytes:
                raise StorageError(f"{object_key} has {stored.size_bytes} bytes, at most {max_bytes} were expected")
            return await stored.read()

    async def begin_multipart(self, object_key: str, *, metadata: Mapping[str, str]) -> str:
        """Begin to store an object in parts; gives the upload's id."""
        self._check_ours(object_key)
        encoded = {name.lower(): encode_metadata(value) for name, value in metadata.items()}
        with self._writes.writing(proves=False):
            return await self._retrying.call(self._control.begin, object_key, encoded, self._storage_class(object_key))

    async def put_part(
        self, object_key: str, upload_id: str, number: int, chunks: Sequence[bytes | memoryview], *, size_bytes: int
    ) -> str:
        """Store a part (numbered from 1; all but the last of equal size, at least 5 MiB); gives its ETag."""
        self._check_ours(object_key)
        with self._writes.writing():
            return await self._retrying.call(
                self._wire.put_part, object_key, upload_id, number, chunks, size_bytes=size_bytes
            )

    async def complete_multipart(
        self, object_key: str, upload_id: str, etags: Sequence[str], *, size_bytes: int
    ) -> None:
        """Make the object of its parts.

        Whatever was answered, or lost on its way: the object's size decides, as no other upload has its key.
        """
        self._check_ours(object_key)
        failure: StorageError = UploadGoneError(
            f"the multipart upload of {object_key} is gone, and its object is not there"
        )
        try:
            with self._writes.writing(proves=False):
                if await self._retrying.call_while(
                    is_lost_answer, self._control.complete, object_key, upload_id, etags
                ):
                    return
        except StorageError as exc:
            failure = exc
        if await self._retrying.call(self._control.size_of, object_key) != size_bytes:
            raise failure

    async def copy(
        self, source: CopySource, object_key: str, *, metadata: Mapping[str, str], algorithm: str | None = None
    ) -> str | None:
        """Make an object of one in any bucket of the same server; gives its SHA-256 (base64) if the server tells it."""
        self._check_ours(object_key)
        encoded = {name.lower(): encode_metadata(value) for name, value in metadata.items()}
        return await self._retrying.call(  # a refusal may be about the source, which says nothing of our own bucket
            self._control.copy,
            source,
            object_key,
            encoded,
            algorithm=algorithm,
            storage_class=self._storage_class(object_key),
        )

    async def copy_part(
        self, source: CopySource, object_key: str, upload_id: str, number: int, byte_range: ByteRange
    ) -> str:
        """Make a part of a multipart upload of a stretch of another object; gives its ETag."""
        self._check_ours(object_key)
        return await self._retrying.call(self._control.copy_part, source, object_key, upload_id, number, byte_range)

    async def size_of(self, object_key: str) -> int | None:
        """Ask for an object's size; None when there is no such object."""
        return await self._retrying.call(self._control.size_of, object_key)

    async def checksum_of(self, object_key: str) -> str | None:
        """Ask for the SHA-256 (base64) that the server itself keeps of an object; None when it keeps none."""
        return await self._retrying.call(self._control.checksum_of, object_key)

    async def metadata_of(self, object_key: str) -> dict[str, str] | None:
        """Ask what an object was told of itself when it was made; None when there is no such object."""
        found = await self.facts_of(object_key)
        return None if found is None else dict(found.metadata)

    async def facts_of(self, object_key: str) -> ObjectFacts | None:
        """Ask for an object's size, ETag and metadata; None when there is no such object."""
        found = await self._retrying.call(self._control.facts_of, object_key)
        if found is None:
            return None
        return replace(found, metadata={name: unquote(value) for name, value in found.metadata.items()})

    async def abort_multipart(self, object_key: str, upload_id: str) -> None:
        """Forget an upload and its parts; one that is gone already is fine."""
        self._check_ours(object_key)
        await self._retrying.call(self._control.abort, object_key, upload_id)

    async def delete(self, object_keys: Sequence[str]) -> dict[str, str]:
        """Delete objects; gives the reason of each that remains. Missing ones are fine.

        1000 go with one request, or one with each where the server has no DeleteObjects.
        """
        for object_key in object_keys:
            self._check_ours(object_key)
        remaining: dict[str, str] = {}
        for start in range(0, len(object_keys), _DELETE_BATCH):
            batch = object_keys[start : start + _DELETE_BATCH]
            remaining |= await self._delete_batch(batch)
        return remaining

    async def _delete_batch(self, object_keys: Sequence[str]) -> dict[str, str]:
        now = asyncio.get_running_loop().time()
        if now >= self._bulk_delete_again:
            try:
                return await self._retrying.call(self._control.delete, object_keys)
            except UnsupportedRequestError as exc:
                log.info("bulk_delete_unsupported", store=self.name, reason=exc.hint)
                self._bulk_delete_again = now + _BULK_DELETE_AGAIN_S
        remaining: dict[str, str] = {}
        pending = iter(object_keys)

        async def delete_rest() -> None:
            for object_key in pending:
                try:
                    await self._retrying.call(self._control.delete_one, object_key)
                except StorageUnavailableError:
                    raise
                except StorageError as exc:
                    remaining[object_key] = exc.hint

        async with task_group() as group:
            for _ in range(_DELETES_AT_ONCE):
                group.create_task(delete_rest())
        return remaining

    async def list(self, under: str, *, start_after: str | None = None) -> AsyncIterator[ListedObject]:
        """Walk through all objects whose key begins with `under`, in the order of keys (as bytes)."""
        first = {} if start_after is None else {"StartAfter": start_after}
        async for page in self._pages(Prefix=under, **first):
            for found in page.get("Contents", ()):
                yield ListedObject(found["Key"], found["Size"], found.get("ETag", "").strip('"'))

    async def list_prefixes(self, under: str) -> AsyncIterator[str]:
        """Walk through the "folders" under `under`: what goes on to a further slash, slash included."""
        async for page in self._pages(Prefix=under, Delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"]

    async def list_multiparts(self, under: str) -> AsyncIterator[ListedMultipart]:
        """Walk through the open multipart uploads whose key begins with `under`.

        UnsupportedRequestError where the server has no such list, or shows nothing of what should be in it.
        """
        marker: dict[str, str] = {}
        any_found = False
        while True:
            page = await self._retrying.call(self._control.list_multiparts, Prefix=under, **marker)
            for found in page.get("Uploads", ()):
                any_found = True
                yield ListedMultipart(found["Key"], found["UploadId"])
            if not any_found and self._control.lists_whole_keys_only(page):
                raise UnsupportedRequestError(
                    f"{self._config.endpoint_url} (MinIO) lists open multipart uploads of a whole key only"
                )
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            if not page.get("IsTruncated") or following == marker:
                return
            marker = following

    async def multiparts_of(self, object_key: str) -> Sequence[str]:
        """List the ids of a key's open multipart uploads; UnsupportedRequestError where there is no such list."""
        page = await self._retrying.call(self._control.list_multiparts, Prefix=object_key)
        return [found["UploadId"] for found in page.get("Uploads", ()) if found["Key"] == object_key]

    async def _pages(self, **parameters: str) -> AsyncIterator[Answer]:
        token: dict[str, str] = {}
        while True:
            page = await self._retrying.call(self._control.list, "list", **parameters, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page.get("NextContinuationToken", "")}
            if following == token or not following["ContinuationToken"]:
                raise StorageError(f"{self._config.endpoint_url} does not go on with its listing")
            token = following

    def holds(self, object_key: str) -> bool:
        """Say whether a key lies within the store's prefix, and so may be changed at all."""
        return object_key.startswith(f"{self.prefix}/")

    def _storage_class(self, object_key: str) -> str | None:
        """Say in which storage class an object is stored: the marker and the journal, often read, in the bucket's."""
        is_media = object_key.startswith(self._media_folders)
        return self._config.storage_class if is_media else None

    def _check_ours(self, object_key: str) -> None:
        if self.read_only:
            raise StoreMisconfiguredError(f"store {self.name} is read_only")
        if not self.holds(object_key):
            raise ValueError(f"{object_key} is outside of the store's prefix {self.prefix}/")
