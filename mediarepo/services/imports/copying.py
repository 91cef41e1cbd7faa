"""Objects copied by the S3 server itself, where it lets us."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from mediarepo.db.sweep import Intents
from mediarepo.model.byte_stream import Span
from mediarepo.model.ids import new_object_key
from mediarepo.model.import_ledger import Content
from mediarepo.model.import_source import ObjectBytes
from mediarepo.services.imports.judging import Carry
from mediarepo.services.imports.keys import KeyPool
from mediarepo.services.stores import Stores
from mediarepo.storage.copying import CopySource
from mediarepo.storage.errors import StorageError, StorageUnavailableError
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

GIB = 1024**3
MAX_COPY_BYTES = 5 * GIB
"""What one CopyObject takes at most (API reference: CopyObject)."""
_PART_BYTES = GIB


@dataclass(slots=True, kw_only=True)
class Copying:
    """Copies objects, and learns their hashes if the server tells them; finds out first whether it is allowed to."""

    stores: Stores
    intents: Intents
    holder: str
    now_ms: Callable[[], int]
    max_copy_bytes: int = MAX_COPY_BYTES
    part_bytes: int = _PART_BYTES
    _allowed: dict[tuple[str, str], bool] = field(default_factory=dict)
    _algorithms: dict[str, str | None] = field(default_factory=dict)
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def is_allowed(self, item: Carry, keys: KeyPool) -> bool:
        """Say whether our store's credentials may copy out of the source's bucket; found out by the first object."""
        if not isinstance(item.found, ObjectBytes):
            return False
        store = self.stores.taking(item.store_class)
        route = (item.found.bucket, store.name)
        async with self._probing:
            if route not in self._allowed:
                self._allowed[route] = await self._probe(item.found, store, item, keys)
            return self._allowed[route]

    async def _probe(self, found: ObjectBytes, store: Store, item: Carry, keys: KeyPool) -> bool:
        if found.size_bytes > self.max_copy_bytes:
            return True
        key = await keys.take(store, item.store_class)
        try:
            checksum = await store.copy(_source(found), key, metadata={}, algorithm="SHA256")
        except StorageUnavailableError:
            raise
        except StorageError as exc:
            log.warning("server_does_not_copy", store=store.name, bucket=found.bucket, reason=str(exc))
            return False
        self._algorithms[store.name] = None if checksum is None else "SHA256"
        return True

    async def copy(self, item: Carry, keys: KeyPool) -> Content:
        """Copy one object under a key of ours, and make sure that it is as long as it should be."""
        if not isinstance(item.found, ObjectBytes):
            raise TypeError(f"{item.found} is no object")
        found, store = item.found, self.stores.taking(item.store_class)
        if found.size_bytes > self.max_copy_bytes:
            key, checksum = await self._copy_parts(found, store, item), None
        else:
            key = await keys.take(store, item.store_class)
            metadata = {"mxc": f"mxc://{item.media.server_name}/{item.media.media_id}"}
            algorithm = self._algorithms.get(store.name)
            checksum = await store.copy(_source(found), key, metadata=metadata, algorithm=algorithm)
        if await store.size_of(key) != found.size_bytes:
            raise StorageError(f"the copy of {found.object_key} is not as long as the object")
        sha256 = None if checksum is None else base64.b64decode(checksum)
        claimed = item.media.sha256 if item.check_size else None
        return Content(
            store.name, key, found.size_bytes, sha256 or claimed, sha256_known=sha256 is not None, intent=True
        )

    async def _copy_parts(self, found: ObjectBytes, store: Store, item: Carry) -> str:
        """Copy what is too large for one request; the intent says that it is under way."""
        key = new_object_key(store.prefix, item.store_class, self.now_ms())
        await self.intents.begin_many(store.name, [key], self.holder)
        upload_id = await store.begin_multipart(key, metadata={})
        await self.intents.beat(store.name, key, upload_id)
        etags = []
        for number, offset in enumerate(range(0, found.size_bytes, self.part_bytes), 1):
            span = Span(offset, min(self.part_bytes, found.size_bytes - offset))
            etags.append(await store.copy_part(_source(found), key, upload_id, number, span))
        await store.complete_multipart(key, upload_id, etags, size_bytes=found.size_bytes)
        return key


def _source(found: ObjectBytes) -> CopySource:
    return CopySource(found.bucket, found.object_key, found.size_bytes, found.etag)
