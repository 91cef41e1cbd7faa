"""Bytes of media and thumbnails in their stores; what S3 has lost is recorded, and only where the bucket is ours."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mediarepo.db.cache_lease import CacheLease
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.media import MediaTable
from mediarepo.errors import ContentLostError, NotFoundError, UnavailableError
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.media import Blob, Media, Thumbnail
from mediarepo.services.stores import NOT_OURS, BucketMarkers, Stores
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.stored_object import OpenObject, StoredObject

log = structlog.get_logger(__name__)

OnMissing = Callable[[Blob], Awaitable[None]]
"""Called with a blob whose object S3 does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredContent:
    """Opens objects by their rows."""

    media: MediaTable
    cache_lease: CacheLease
    deletion_table: DeletionTable
    stores: Stores
    markers: BucketMarkers
    on_missing: Callable[[], None]

    def open(self, blob: Blob, byte_range: ByteRange | None = None) -> "OpenBlob":
        """Open a blob's bytes, or a range of them; S3 has answered when this is entered.

        Entering raises ContentLostError when S3 has lost the object, after its media were marked missing.
        """
        return self._open(blob, byte_range, self.note_missing)

    def open_thumbnail(self, thumbnail: Thumbnail, media: Media, byte_range: ByteRange | None = None) -> "OpenBlob":
        """Open a thumbnail's bytes, or a range of them.

        Entering raises ContentLostError when S3 has lost the object, after its rows were deleted: it is rendered anew.
        """
        if thumbnail.blob == media.blob:
            return self.open(thumbnail.blob, byte_range)
        wanted = byte_range or ByteRange(0, thumbnail.size_bytes)
        in_pack = ByteRange(thumbnail.offset + wanted.offset, wanted.size_bytes)
        return self._open(thumbnail.blob, in_pack, self._forget_pack)

    def _open(self, blob: Blob, byte_range: ByteRange | None, on_missing: OnMissing) -> "OpenBlob":
        opening = self.stores.named(blob.store).open(blob.object_key, byte_range, known_bytes=blob.size_bytes)
        return OpenBlob(opening, blob, on_missing)

    async def presign(self, media: Media, *, lifetime_s: int, content_disposition: str, window_s: int = 1) -> str:
        """Make a URL at which S3 itself serves media's bytes, the same within each `window_s` seconds.

        Raises NotFoundError when there is no content.
        """
        if media.blob is None:
            raise NotFoundError("media not found")
        return await self.stores.named(media.blob.store).presign(
            media.blob.object_key,
            lifetime_s=lifetime_s,
            content_type=media.content_type,
            content_disposition=content_disposition,
            window_s=window_s,
        )

    async def note_missing(self, blob: Blob) -> None:
        """Mark a blob's media missing, once it is certain that this is the right bucket; else UnavailableError."""
        await self._check_bucket(blob)
        log.error("object_missing", store=blob.store, object_key=blob.object_key, blob_id=blob.blob_id)
        self.on_missing()
        await self.media.mark_missing(blob)
        self.cache_lease.drop()

    async def _forget_pack(self, pack: Blob) -> None:
        await self._check_bucket(pack)
        log.error("thumbnails_missing", store=pack.store, object_key=pack.object_key)
        await self.deletion_table.delete_packs([pack.blob_id])
        self.cache_lease.drop()

    async def _check_bucket(self, blob: Blob) -> None:
        """Refuse with UnavailableError when a blob's bucket is not ours: nothing missing there is lost."""
        store = self.stores.named(blob.store)
        if not await self.markers.is_ours(store):
            log.error("bucket_not_owned", store=store.name, object_key=blob.object_key, help=NOT_OURS)
            raise UnavailableError("storage cannot be reached just now", retry_after_s=60)


class OpenBlob:
    """A blob that is being opened."""

    __slots__ = ("_blob", "_on_missing", "_opening")

    def __init__(self, opening: OpenObject, blob: Blob, on_missing: OnMissing) -> None:
        self._opening = opening
        self._blob = blob
        self._on_missing = on_missing

    async def __aenter__(self) -> StoredObject:
        try:
            return await self._opening.__aenter__()
        except ObjectMissingError as exc:
            await self._on_missing(self._blob)
            raise ContentLostError("media not found") from exc

    async def __aexit__(self, *exc_info: object) -> None:
        await self._opening.__aexit__(*exc_info)
