"""From a stream of bytes to media."""

from collections.abc import Callable
from dataclasses import dataclass

from mediarepo.config.media import UploadsConfig
from mediarepo.db.publishing import Publishing
from mediarepo.errors import TooLargeError
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import NewMedia, NewObject, StoreClass
from mediarepo.services.bodies import Body
from mediarepo.services.large_uploads import LargeUploads, OnHashed, hashed_silently
from mediarepo.services.memory import MemoryBudget
from mediarepo.services.parts import Part, PartReader
from mediarepo.services.stores import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """Stores what users upload; the bytes are durable in S3 before any row mentions them."""

    config: UploadsConfig
    memory: MemoryBudget
    publishing: Publishing
    stores: Stores
    large: LargeUploads
    now_ms: Callable[[], int]
    store_class: StoreClass = StoreClass.LOCAL

    def check_size(self, declared_bytes: int | None, max_bytes: int | None = None) -> None:
        """Refuse a declared length over the limit (the user's own, or that of all), before any byte is read."""
        limit = self.config.max_bytes if max_bytes is None else max_bytes
        if declared_bytes is not None and declared_bytes > limit:
            raise TooLargeError(f"the upload is larger than the limit of {limit} bytes")

    async def store(
        self,
        media: NewMedia,
        body: Body,
        *,
        declared_bytes: int | None,
        at_most_bytes: int | None = None,
        max_bytes: int | None = None,
        on_hashed: OnHashed = hashed_silently,
    ) -> None:
        """Store a body and make media of it; returns once both are durable.

        `on_hashed` is told the SHA-256 as soon as all bytes have come, before they are durable.
        """
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

    async def _store_small(self, media: NewMedia, part: Part, reader: PartReader, on_hashed: OnHashed) -> None:
        sha256 = reader.sha256.digest()
        await on_hashed(sha256)
        store = self.stores.taking(self.store_class)
        if self.config.deduplicate_early and await self.publishing.link(media, store=store.name, sha256=sha256):
            return
        now_ms = self.now_ms()
        object_key = new_object_key(store.prefix, self.store_class, now_ms)
        await store.put(object_key, part.pieces, size_bytes=part.size_bytes, metadata=self.stores.metadata(media.mxc))
        reader.release(part)
        stored = NewObject(
            store=store.name, object_key=object_key, key_ts=now_ms, size_bytes=part.size_bytes, sha256=sha256
        )
        await self.publishing.publish(media, stored)
