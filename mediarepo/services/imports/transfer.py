"""Transfers the bytes of one row: adopts them, copies them within S3, or reads and stores them."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import structlog

from mediarepo.config.media import UploadsConfig
from mediarepo.db.import_ledger import ImportLedger
from mediarepo.db.sweep import UploadIntents
from mediarepo.errors import BadRequestError, TooLargeError
from mediarepo.importers.errors import BytesVanishedError
from mediarepo.importers.source import Source
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.ids import new_object_key
from mediarepo.model.import_ledger import ImportedBytes, ImportReason, ItemMode, ItemState, LedgerEntry
from mediarepo.model.import_source import ObjectBytes
from mediarepo.model.mxc import Mxc
from mediarepo.services.imports.decision import TransferItem, describe_place, list_repairs
from mediarepo.services.imports.throttle import KeyPool, Throttle
from mediarepo.services.stores import Stores
from mediarepo.services.upload_parts import MemoryBudget, PartReader, UploadPart
from mediarepo.services.uploads import LargeUploads
from mediarepo.storage.control import CopySource
from mediarepo.storage.errors import StorageError, StorageUnavailableError
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

GIB = 1024**3
MAX_COPY_BYTES = 5 * GIB
"""What one CopyObject takes at most (API reference: CopyObject)."""
_PART_BYTES = GIB


@dataclass(slots=True, kw_only=True)
class ServerSideCopy:
    """Copies objects within the S3 server, and learns their hashes if it tells them; checks permission first."""

    stores: Stores
    upload_intents: UploadIntents
    holder: str
    now_ms: Callable[[], int]
    max_copy_bytes: int = MAX_COPY_BYTES
    part_bytes: int = _PART_BYTES
    _allowed: dict[tuple[str, str], bool] = field(default_factory=dict)
    _algorithms: dict[str, str | None] = field(default_factory=dict)
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def is_allowed(self, item: TransferItem, keys: KeyPool) -> bool:
        """Return whether our credentials may copy from the source's bucket; tested with the first object."""
        if not isinstance(item.found, ObjectBytes):
            return False
        store = self.stores.store_for_class(item.store_class)
        route = (item.found.bucket, store.name)
        async with self._probing:
            if route not in self._allowed:
                self._allowed[route] = await self._probe(item.found, store, item, keys)
            return self._allowed[route]

    async def _probe(self, found: ObjectBytes, store: Store, item: TransferItem, keys: KeyPool) -> bool:
        if found.size_bytes > self.max_copy_bytes:
            return True
        key = await keys.take(store, item.store_class)
        try:
            checksum = await store.copy(_source(found), key, metadata={}, algorithm="SHA256")
        except StorageUnavailableError:
            raise
        except StorageError as exc:
            log.warning("s3_copy_unsupported", store=store.name, bucket=found.bucket, reason=str(exc))
            return False
        self._algorithms[store.name] = None if checksum is None else "SHA256"
        return True

    async def copy(self, item: TransferItem, keys: KeyPool) -> ImportedBytes:
        """Copy one object under a new key, and check its length.

        Raises StorageError when the copy has another length, TypeError when the item's bytes are no object.
        """
        if not isinstance(item.found, ObjectBytes):
            raise TypeError(f"{item.found} is no object")
        found, store = item.found, self.stores.store_for_class(item.store_class)
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
        return ImportedBytes(
            store.name, key, found.size_bytes, sha256 or claimed, sha256_known=sha256 is not None, intent=True
        )

    async def _copy_parts(self, found: ObjectBytes, store: Store, item: TransferItem) -> str:
        """Copy what is too large for one request; the intent says that it is under way."""
        key = new_object_key(store.prefix, item.store_class, self.now_ms(), intended=True)
        await self.upload_intents.begin_many(store.name, [key], self.holder)
        upload_id = await store.begin_multipart(key, metadata={})
        await self.upload_intents.beat(store.name, key, upload_id)
        etags = []
        for number, offset in enumerate(range(0, found.size_bytes, self.part_bytes), 1):
            byte_range = ByteRange(offset, min(self.part_bytes, found.size_bytes - offset))
            etags.append(await store.copy_part(_source(found), key, upload_id, number, byte_range))
        await store.complete_multipart(key, upload_id, etags, size_bytes=found.size_bytes)
        return key


def _source(found: ObjectBytes) -> CopySource:
    return CopySource(found.bucket, found.object_key, found.size_bytes, found.etag)


class WrongHashError(Exception):
    """Bytes do not match the hash in the source's row."""


@dataclass(slots=True)
class _SourceBody:
    """A body that comes from a source."""

    pieces: AsyncGenerator[bytes, None]

    async def read(self) -> bytes:
        return await anext(self.pieces, b"")


@dataclass(slots=True, kw_only=True)
class ItemTransfer:
    """Makes contents durable; until they are committed, only intents mention them.

    `fresh` has contents that are stored and not yet committed, so that equal ones are stored once. `hashes` has the
    prefixes of all hashes known here, unless there are too many: no others need be looked up. With `joins_claimed`,
    objects are not copied whose rows carry the hash of content that is here already.
    """

    source: Source
    source_id: int
    config: UploadsConfig
    stores: Stores
    ledger: ImportLedger
    keys: KeyPool
    memory: MemoryBudget
    large: LargeUploads
    copying: ServerSideCopy
    pace: Throttle
    on_bytes: Callable[[int], None]
    joins_claimed: bool = True
    hashes: set[bytes] | None = None
    fresh: dict[tuple[str, bytes], asyncio.Future[None]] = field(default_factory=dict)

    async def carry(self, item: TransferItem) -> LedgerEntry:
        """Import one row's bytes.

        Raises SourceError, StorageError or LimitExceededError when they stay at the source.
        """
        await self.pace.requests.take(0 if item.route.mode is ItemMode.ADOPT else 1)
        mode = item.route.mode
        try:
            if mode is ItemMode.ADOPT:
                content = _adopted(item)
            elif mode is ItemMode.COPY and await self.copying.is_allowed(item, self.keys):
                content = await self._copied(item)
            else:
                mode = ItemMode.STREAM if mode is ItemMode.COPY else mode
                content = await self._stored(item)
        except WrongHashError:
            words = "the bytes have another SHA-256 than the row says"
            return _refused(item, ItemState.MISMATCHED, ImportReason.HASH, words)
        except (BytesVanishedError, BadRequestError, TooLargeError) as exc:
            return _refused(item, ItemState.FAILED, ImportReason.VANISHED, str(exc))
        reason, words = list_repairs(item.media)
        return LedgerEntry(
            media=item.media,
            state=ItemState.COMMITTED,
            mode=mode,
            reason=reason,
            words=words,
            place=describe_place(item.found),
            content=content,
            preview_expires_ts=item.preview_expires_ts,
        )

    async def _copied(self, item: TransferItem) -> ImportedBytes:
        """Have one row's object copied, unless content that the row says is the same has been copied or stored."""

        async def copy() -> ImportedBytes:
            content = await self.copying.copy(item, self.keys)
            if content.sha256_known and content.sha256 is not None:
                _check_hash(item, content.sha256)
            return content

        claimed = item.media.sha256 if item.check_size and self.joins_claimed else None
        store = self.stores.store_for_class(item.store_class)
        return await self._once(
            ImportedBytes(store.name, None, item.found.size_bytes, claimed, sha256_known=False), copy
        )

    async def _stored(self, item: TransferItem) -> ImportedBytes:
        size_bytes = item.found.size_bytes
        if item.check_size and size_bytes <= self.config.part_bytes:
            async with self.memory.account(size_bytes) as account:
                await account.reserve(size_bytes)
                data = await self.source.read(item.found)
                await self.pace.bytes.take(size_bytes)
                return await self._store_small(item, data)
        at_most = None if item.check_size else size_bytes
        async with (
            self.memory.account(size_bytes) as account,
            aclosing(self.source.open(item.found)) as pieces,
        ):
            reader = PartReader(
                self.config,
                _SourceBody(pieces),
                account,
                declared_bytes=size_bytes if item.check_size else None,
                at_most_bytes=at_most,
                max_bytes=size_bytes,
                pause=self.pace.bytes.take,
            )
            first = await reader.read_part()
            if await reader.at_end():
                return await self._store_small(item, b"".join(first.pieces))
            return await self._store_large(item, first, reader)

    async def _store_small(self, item: TransferItem, data: bytes) -> ImportedBytes:
        sha256, size_bytes = hashlib.sha256(data).digest(), len(data)
        _check_hash(item, sha256)
        store = self.stores.store_for_class(item.store_class)

        async def put() -> ImportedBytes:
            key = await self.keys.take(store, item.store_class)
            metadata = self.stores.metadata(_mxc(item))
            await store.put(key, [data], size_bytes=size_bytes, metadata=metadata)
            self.on_bytes(size_bytes)
            return ImportedBytes(store.name, key, size_bytes, sha256, sha256_known=True, intent=True)

        return await self._once(ImportedBytes(store.name, None, size_bytes, sha256, sha256_known=True), put)

    async def _store_large(self, item: TransferItem, first: UploadPart, reader: PartReader) -> ImportedBytes:
        store = self.stores.store_for_class(item.store_class)
        large = replace(self.large, store_class=item.store_class)

        async def is_known(sha256: bytes) -> bool:
            _check_hash(item, sha256)
            return await self._holds(store.name, sha256)

        stored = await large.put(_mxc(item), first, reader, is_known)
        sha256 = reader.sha256.digest()
        if stored is None:
            return ImportedBytes(store.name, None, reader.size_bytes, sha256, sha256_known=True)
        self.on_bytes(stored.size_bytes)
        return ImportedBytes(store.name, stored.object_key, stored.size_bytes, sha256, sha256_known=True, intent=True)

    async def _once(self, known: ImportedBytes, put: Callable[[], Awaitable[ImportedBytes]]) -> ImportedBytes:
        """Store content unless it is stored, or being stored, already."""
        if known.sha256 is None:
            return await put()
        key = (known.store, known.sha256)
        while (other := self.fresh.get(key)) is not None:
            await asyncio.wait([other])
            if other.exception() is None:
                return known
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fresh[key] = mine
        try:
            content = known if await self._has(known) else await put()
        except BaseException as exc:
            del self.fresh[key]
            mine.set_exception(exc if isinstance(exc, Exception) else asyncio.InvalidStateError("given up"))
            mine.exception()
            raise
        mine.set_result(None)
        if self.hashes is not None:
            self.hashes.add(known.sha256[:8])
        return content

    async def _has(self, known: ImportedBytes) -> bool:
        if known.sha256 is None or (self.hashes is not None and known.sha256[:8] not in self.hashes):
            return False
        return await self.ledger.has_content(known, self.source_id)

    async def _holds(self, store: str, sha256: bytes) -> bool:
        if self.hashes is not None and sha256[:8] not in self.hashes:
            return False
        return await self.ledger.holds(store, sha256)

    def forget(self, contents: list[ImportedBytes]) -> None:
        """Forget contents that the database knows by now, or never will."""
        for content in contents:
            if content.sha256 is not None:
                self.fresh.pop((content.store, content.sha256), None)


def _adopted(item: TransferItem) -> ImportedBytes:
    if not isinstance(item.found, ObjectBytes) or item.route.store is None:
        raise TypeError(f"{item.found} cannot be adopted")
    return ImportedBytes(
        item.route.store,
        item.found.object_key,
        item.found.size_bytes,
        item.media.sha256 if item.check_size else None,
        sha256_known=False,
        borrowed=True,
    )


def _check_hash(item: TransferItem, sha256: bytes) -> None:
    if item.check_size and item.media.sha256 is not None and item.media.sha256 != sha256:
        raise WrongHashError


def _refused(item: TransferItem, state: ItemState, reason: ImportReason, words: str) -> LedgerEntry:
    return LedgerEntry(media=item.media, state=state, reason=reason, words=words, place=describe_place(item.found))


def _mxc(item: TransferItem) -> Mxc:
    return Mxc(item.media.server_name, item.media.media_id)
