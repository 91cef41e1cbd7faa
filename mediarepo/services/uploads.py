"""Stores a body as media: in one PUT, or as a multipart upload under its final key.

Order of writes of a large upload: the intent row, then S3's multipart upload, then the parts, then either Abort (the
content is known already) or Complete and the rows. A crash anywhere leaves an intent whose heartbeat stops, which the
sweep claims.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog

from mediarepo.config.media import UploadsConfig
from mediarepo.db.database import StaleKeyError
from mediarepo.db.publishing import PendingTable, PublishTable
from mediarepo.db.sweep import UploadIntents
from mediarepo.errors import (
    CannotOverwriteMediaError,
    MatrixError,
    NotFoundError,
    TooLargeError,
    UploadsRefusedError,
)
from mediarepo.model.byte_stream import Sink
from mediarepo.model.concurrency import InUse, task_group
from mediarepo.model.ids import new_object_key
from mediarepo.model.import_source import ReadThroughSource
from mediarepo.model.media import NewMedia, NewObject, PendingMedia, StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.model.requester import Requester
from mediarepo.model.scans import ContentGate
from mediarepo.model.tasks import Lease, Queue
from mediarepo.services.access_policy import check_upload, may_be_announced_at_source
from mediarepo.services.batch_isolation import BatchIsolation, run_steps
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.limits import Quotas
from mediarepo.services.stores import Stores
from mediarepo.services.upload_parts import Body, MemoryBudget, PartReader, UploadPart
from mediarepo.storage.errors import StorageRefusesWritesError, UploadGoneError
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

_CLEANUP_TIMEOUT_S = 20
_SENT_BYTES = 256 * 1024


OnHashed = Callable[[bytes], Awaitable[None]]
"""Told the SHA-256 of a body whose last byte has come."""


IsKnown = Callable[[bytes], Awaitable[bool]]
"""Told the SHA-256 of a body before its object is made; says whether it need not be."""


async def ignore_hash(_sha256: bytes) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class _Multipart:
    """One multipart upload under way; `etags` by part number, from 1 on."""

    store: Store
    object_key: str
    upload_id: str
    etags: dict[int, str]
    beaten_ms: int
    completing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeUploads:
    """Stores bodies of any length with a bounded number of parts in memory; intents name `holder`, if there is one."""

    publishing: PublishTable
    upload_intents: UploadIntents
    stores: Stores
    now_ms: Callable[[], int]
    heartbeat_ms: int
    store_class: StoreClass = StoreClass.LOCAL
    holder: str | None = None
    in_use: InUse = field(default_factory=InUse)
    gate: ContentGate | None = None

    async def store(
        self, media: NewMedia, first: UploadPart, reader: PartReader, on_hashed: OnHashed = ignore_hash
    ) -> None:
        """Store a body whose first part has been read already, and make media of it."""
        store_name = self.stores.store_for_class(self.store_class).name

        async def is_known(sha256: bytes) -> bool:
            await on_hashed(sha256)
            if self.gate is not None and not await self.gate.admit(media, sha256, reader.size_bytes, None):
                return False  # its bytes are needed
            return await self.publishing.link(media, store=store_name, sha256=sha256)

        stored = await self.put(media.mxc, first, reader, is_known, media)
        if stored is None:
            return
        if self.gate is not None:
            await self._admit(self.gate, media, stored)
        await self.publishing.publish(media, stored)

    async def _admit(self, gate: ContentGate, media: NewMedia, stored: NewObject) -> None:
        """Let the gate read the object that was just made; what it refuses is queued for deletion."""
        store = self.stores.named(stored.store)

        async def send(sink: Sink) -> None:
            async with store.open(stored.object_key, known_bytes=stored.size_bytes) as opened:
                await opened.send_to(sink)

        try:
            await gate.admit(media, stored.sha256 or b"", stored.size_bytes, send)
        except MatrixError:
            await self.publishing.give_up(stored)
            raise

    async def put(
        self, mxc: Mxc, first: UploadPart, reader: PartReader, is_known: IsKnown, media: NewMedia | None = None
    ) -> NewObject | None:
        """Store a body as an object that no row mentions yet, but for its intent; None when it is known already."""
        store = self.stores.store_for_class(self.store_class)
        key_ts = self.now_ms()
        object_key = new_object_key(store.prefix, self.store_class, key_ts, intended=True)
        metadata = self.stores.metadata(mxc, media, key_ts)
        async with self._multipart(store, object_key, metadata) as multipart:
            await self._send_parts(multipart, first, reader)
            sha256 = reader.sha256.digest()
            if await is_known(sha256):
                await self._clean_up(multipart)
                return None
            multipart.completing = True
            etags = [multipart.etags[number] for number in sorted(multipart.etags)]
            await store.complete_multipart(object_key, multipart.upload_id, etags, size_bytes=reader.size_bytes)
        return NewObject(
            store=store.name,
            object_key=object_key,
            key_ts=key_ts,
            size_bytes=reader.size_bytes,
            sha256=sha256,
            multipart=True,
        )

    @contextlib.asynccontextmanager
    async def _multipart(self, store: Store, object_key: str, metadata: Mapping[str, str]) -> AsyncIterator[_Multipart]:
        """Begin a multipart upload, and abort it when anything goes wrong, be it a cancellation."""
        with self.in_use.holding("multipart_uploads"):
            async with self._intended(store, object_key, metadata) as multipart:
                yield multipart

    @contextlib.asynccontextmanager
    async def _intended(self, store: Store, object_key: str, metadata: Mapping[str, str]) -> AsyncIterator[_Multipart]:
        await self.upload_intents.begin(store.name, object_key, self.holder)
        upload_id = await store.begin_multipart(object_key, metadata=metadata)
        multipart = _Multipart(store, object_key, upload_id, {}, self.now_ms())
        try:
            await self._beat(multipart)
            yield multipart
        except UploadGoneError as exc:
            await self._clean_up(multipart)
            raise _given_up() from exc
        except BaseException:
            await self._clean_up(multipart)
            raise

    async def _send_parts(self, multipart: _Multipart, first: UploadPart, reader: PartReader) -> None:
        """Send parts while the next one is read: one in flight, one arriving.

        A part that cannot be sent ends the reading at once: what it holds is given back, and nothing waits for it.
        """
        sending: asyncio.Task[None] | None = None
        part, number = first, 0
        async with task_group() as group:
            while part.size_bytes:
                number += 1
                if sending is not None:
                    await sending
                sending = group.create_task(self._send_part(multipart, number, part, reader))
                await self._beat_if_due(multipart)
                if await reader.at_end():
                    break
                part = await reader.read_part()

    async def _send_part(self, multipart: _Multipart, number: int, part: UploadPart, reader: PartReader) -> None:
        multipart.etags[number] = await multipart.store.put_part(
            multipart.object_key, multipart.upload_id, number, part.pieces, size_bytes=part.size_bytes
        )
        reader.release(part)

    async def _beat_if_due(self, multipart: _Multipart) -> None:
        if self.now_ms() - multipart.beaten_ms >= self.heartbeat_ms:
            await self._beat(multipart)

    async def _beat(self, multipart: _Multipart) -> None:
        if not await self.upload_intents.beat(multipart.store.name, multipart.object_key, multipart.upload_id):
            raise _given_up()
        multipart.beaten_ms = self.now_ms()

    async def _clean_up(self, multipart: _Multipart) -> None:
        """Abort as well as can be done now; what fails is left to the sweep, which finds the intent."""
        aborting = asyncio.ensure_future(self._abort(multipart))
        try:
            async with asyncio.timeout(_CLEANUP_TIMEOUT_S):
                await asyncio.shield(aborting)
        except (MatrixError, TimeoutError) as exc:
            log.warning("multipart_abort_deferred", object_key=multipart.object_key, reason=str(exc))
        finally:
            aborting.cancel()

    async def _abort(self, multipart: _Multipart) -> None:
        """Abort, and forget the intent unless the object may have been made after all: then the sweep must find it."""
        await multipart.store.abort_multipart(multipart.object_key, multipart.upload_id)
        if multipart.completing and await multipart.store.size_of(multipart.object_key) is not None:
            return
        await self.upload_intents.end(multipart.store.name, multipart.object_key)


def _given_up() -> StaleKeyError:
    """Refuse what the sweep has claimed meanwhile."""
    return StaleKeyError("the upload took too long and was given up; try again", retry_after_s=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """Stores what users upload; the bytes are durable in S3 before any row mentions them."""

    config: UploadsConfig
    max_bytes: Callable[[], int]
    memory: MemoryBudget
    publishing: PublishTable
    stores: Stores
    large: LargeUploads
    now_ms: Callable[[], int]
    store_class: StoreClass = StoreClass.LOCAL
    gate: ContentGate | None = None

    def check_size(self, declared_bytes: int | None, max_bytes: int | None = None) -> None:
        """Check a declared length before any byte is read.

        Raises TooLargeError above the user's own limit, or that of all.
        """
        limit = self.max_bytes() if max_bytes is None else max_bytes
        if declared_bytes is not None and declared_bytes > limit:
            raise TooLargeError(f"the upload is larger than the limit of {limit} bytes")

    async def store_upload(
        self, media: NewMedia, body: Body, *, declared_bytes: int | None, max_bytes: int | None
    ) -> None:
        """Store what a user uploads, as `store` does; UploadsRefusedError, at once, while the storage takes nothing."""
        try:
            self.stores.store_for_class(self.store_class).check_takes_writes()
            await self.store(media, body, declared_bytes=declared_bytes, max_bytes=max_bytes)
        except StorageRefusesWritesError as exc:
            raise UploadsRefusedError("the media repository takes no uploads until its operator makes room") from exc

    async def store(
        self,
        media: NewMedia,
        body: Body,
        *,
        declared_bytes: int | None,
        at_most_bytes: int | None = None,
        max_bytes: int | None = None,
        on_hashed: OnHashed = ignore_hash,
    ) -> None:
        """Store a body and make media of it; returns once both are durable.

        `on_hashed` is told the SHA-256 as soon as all bytes have come, before they are durable.
        """
        max_bytes = self.max_bytes() if max_bytes is None else max_bytes
        self.check_size(declared_bytes, max_bytes)
        async with self.memory.account(at_most_bytes if declared_bytes is None else declared_bytes) as account:
            reader = PartReader(
                self.config,
                body,
                account,
                declared_bytes=declared_bytes,
                at_most_bytes=at_most_bytes,
                max_bytes=max_bytes,
            )
            first = await reader.read_part()
            if await reader.at_end():
                await self._store_small(media, first, reader, on_hashed)
            else:
                await self.large.store(media, first, reader, on_hashed)

    async def _store_small(self, media: NewMedia, part: UploadPart, reader: PartReader, on_hashed: OnHashed) -> None:
        sha256 = reader.sha256.digest()
        await on_hashed(sha256)
        if self.gate is not None:
            await self.gate.admit(media, sha256, part.size_bytes, partial(_send_pieces, part.pieces))
        store = self.stores.store_for_class(self.store_class)
        now_ms = self.now_ms()
        object_key = new_object_key(store.prefix, self.store_class, now_ms, intended=True)
        if await self.publishing.begin(
            media,
            store=store.name,
            sha256=sha256,
            object_key=object_key,
            look_for_equal=self.config.deduplicate_early,
        ):
            return
        metadata = self.stores.metadata(media.mxc, media, now_ms)
        await store.put(object_key, part.pieces, size_bytes=part.size_bytes, metadata=metadata)
        reader.release(part)
        stored = NewObject(
            store=store.name, object_key=object_key, key_ts=now_ms, size_bytes=part.size_bytes, sha256=sha256
        )
        try:
            await self.publishing.publish(media, stored)
        except StaleKeyError:
            await self.publishing.give_up(stored)
            raise


async def _send_pieces(pieces: Sequence[memoryview], sink: Sink) -> None:
    for piece in pieces:
        for start in range(0, len(piece), _SENT_BYTES):
            await sink.write(bytes(piece[start : start + _SENT_BYTES]))


_BATCH = 500
_KEPT_AFTER_EXPIRY_MS = 24 * 3_600_000
"""An upload that began in time may end later; its row must still be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUploads:
    """Announces media ids, and lets their creator fill each once (client-server API, asynchronous uploads)."""

    config: UploadsConfig
    table: PendingTable
    lease_holder: LeaseHolder
    quotas: Quotas
    isolation: BatchIsolation
    read_through: ReadThroughSource | None = None

    async def create(self, mxc: Mxc, requester: Requester) -> PendingMedia:
        """Announce a media id for content that is to follow."""
        limit = self.quotas.max_pending(requester)
        return await self.table.create(mxc, requester.user_id, lifetime_ms=self.config.pending_lifetime_ms, limit=limit)

    @asynccontextmanager
    async def claim(self, mxc: Mxc, requester: Requester) -> AsyncIterator[Lease]:
        """Hold the right to fill a media id; an upload that fails leaves the id as it was.

        Refused, in this order: an id that nobody created (NotFoundError), one that is being filled
        (CannotOverwriteMediaError), one of another user, one that has content, one that has expired.
        """
        announced = await self.table.get(mxc)
        if self.read_through is not None and may_be_announced_at_source(announced):
            await self.read_through.import_media(mxc, unauthenticated=False)
            announced = await self.table.get(mxc)
        if announced is None:
            raise NotFoundError("there is no such media id")
        async with self.lease_holder.acquire(f"upload {mxc}") as lease:
            if lease is None:
                raise CannotOverwriteMediaError("the media is being uploaded already")
            check_upload(await self.table.get(mxc), requester.user_id)
            yield lease

    async def forget_expired(self) -> None:
        """Remove ids that ran out long ago, and promises of room that nobody redeemed."""
        await run_steps(
            self._forget_media,
            self.quotas.table.forget_expired,
            partial(self.lease_holder.leases.forget_expired, _KEPT_AFTER_EXPIRY_MS),
        )

    async def _forget_media(self) -> None:
        forget = partial(self.table.forget_expired, age_ms=_KEPT_AFTER_EXPIRY_MS)
        async with self.isolation.drain_queue(Queue.PENDING_MEDIA):
            while mxcs := await self.table.expired(_KEPT_AFTER_EXPIRY_MS, _BATCH):
                await self.isolation.run(Queue.PENDING_MEDIA, mxcs, forget)
