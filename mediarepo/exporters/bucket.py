"""Writes exported objects to another repository's bucket."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from pydantic import ValidationError

from mediarepo.config.storage import StoreConfig
from mediarepo.exporters.destination import ExportError, FoundBytes
from mediarepo.importers.reading.bucket import BucketAddress
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.store import Store

_PART_BYTES = 8 * 1024 * 1024


class _WholeBucket(Store):
    """A store whose keys begin with anything."""

    def holds(self, object_key: str) -> bool:
        """Take every key."""
        return bool(object_key)


class BucketPlace:
    """Objects whose keys begin with `prefix`, to which paths are appended as they are, without a slash between."""

    def __init__(self, address: BucketAddress, *, prefix: str) -> None:
        self.words = f"the bucket {address.bucket} under {prefix!r}"
        self._store = _WholeBucket("target", _store_config(address))
        self._prefix = prefix

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._store.__aexit__(*exc_info)

    async def find(self, path: str) -> FoundBytes | None:
        """Look for an object, and read it if it is there."""
        key = self._prefix + path
        async for listed in self._store.list(key):
            if listed.key != key:
                return None
            hashing = _Hashing()
            try:
                async with self._store.open(key) as stored:
                    await stored.send_to(hashing)
            except ObjectMissingError:
                return None
            return FoundBytes(listed.size_bytes, hashing.sha256.digest())
        return None

    @asynccontextmanager
    async def writing(self, path: str, *, size_bytes: int) -> AsyncIterator["ObjectWriting"]:  # noqa: ARG002 - counted instead
        """Write an object in one request, or in parts."""
        writing = ObjectWriting(self._store, self._prefix + path)
        try:
            yield writing
        finally:
            await writing.drop()


class ObjectWriting:
    """An object whose bytes are in memory, or lie in S3 as parts of up to 8 MiB, as Synapse's own would."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._upload_id: str | None = None
        self._etags: list[str] = []
        self._waiting = bytearray()
        self._size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Take one piece."""
        self._waiting += data
        self._size_bytes += len(data)
        while len(self._waiting) > _PART_BYTES:
            part = bytes(memoryview(self._waiting)[:_PART_BYTES])
            del self._waiting[:_PART_BYTES]
            await self._put_part(part)

    async def _put_part(self, part: bytes) -> None:
        if self._upload_id is None:
            self._upload_id = await self._store.begin_multipart(self._key, metadata={})
        number = len(self._etags) + 1
        etag = await self._store.put_part(self._key, self._upload_id, number, [part], size_bytes=len(part))
        self._etags.append(etag)

    async def finish(self) -> None:
        """Make the object."""
        last = bytes(self._waiting)
        if self._upload_id is None:
            await self._store.put(self._key, [last], size_bytes=len(last), metadata={})
            return
        await self._put_part(last)
        await self._store.complete_multipart(self._key, self._upload_id, self._etags, size_bytes=self._size_bytes)
        self._upload_id = None

    async def drop(self) -> None:
        """Forget the parts of what never became whole."""
        if self._upload_id is not None:
            await self._store.abort_multipart(self._key, self._upload_id)


class _Hashing:
    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        self.sha256.update(data)


def _store_config(address: BucketAddress) -> StoreConfig:
    if address.customer_key is not None:
        raise ExportError(f"objects of {address.bucket} are encrypted with a key of the client's: export to the folder")
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
        raise ExportError(f"the bucket {address.bucket} cannot be reached: {exc.errors()[0]['msg']}") from exc
