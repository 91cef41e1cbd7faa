"""From an mxc address to a thumbnail: kept, made now, or refused for good."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from mediarepo.config.thumbnails import ThumbnailsConfig
from mediarepo.db.deleting import Deleting
from mediarepo.db.media import MediaAndThumbnail, MediaTable
from mediarepo.db.thumbnails import ThumbnailTable
from mediarepo.errors import CannotThumbnailError, ContentLostError, NotFoundError
from mediarepo.model.media import Media, MediaState, Thumbnail
from mediarepo.model.mxc import Mxc
from mediarepo.model.spans import Span
from mediarepo.model.thumbnails import ThumbnailSpec
from mediarepo.services.downloads import Asking, Downloads
from mediarepo.services.remote_media import RemoteMedia
from mediarepo.services.rendering import Rendering
from mediarepo.services.thumbnail_sizes import configured_spec
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.objects import StoredObject

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FoundThumbnail:
    """Media, and the thumbnail that answers a request for one of it."""

    media: Media
    thumbnail: Thumbnail


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnails:
    """Finds thumbnails and opens their bytes, making them on the first request."""

    config: ThumbnailsConfig
    media: MediaTable
    table: ThumbnailTable
    deleting: Deleting
    downloads: Downloads
    rendering: Rendering
    remote: RemoteMedia

    async def find(self, mxc: Mxc, asked: ThumbnailSpec, asking: Asking) -> FoundThumbnail:
        """Find the thumbnail that answers a request; CannotThumbnailError when the media has none."""
        try:
            return await self._find(mxc, asked, asking)
        except ContentLostError:
            await self.remote.find_stored(mxc, asking)
            return await self._find(mxc, asked, asking)

    async def _find(self, mxc: Mxc, asked: ThumbnailSpec, asking: Asking) -> FoundThumbnail:
        spec = configured_spec(self.config.specs, asked)
        found = await self.media.get_with_thumbnail(mxc, spec)
        if await self.remote.ensure(mxc, None if found is None else found.media, asking):
            found = await self.media.get_with_thumbnail(mxc, spec)
        if found is not None and found.media.state is MediaState.PENDING and asking.wait_ms:
            await self.downloads.wait_for_content(mxc, asking.wait_ms)
            found = await self.media.get_with_thumbnail(mxc, spec)
        media = self.downloads.permit(None if found is None else found.media, asking)
        if self.config.dynamic_sizes and asked != spec:
            spec, found = await self._dynamic(media, asked, spec, found)
        if found is not None and found.failure is not None:
            raise CannotThumbnailError(found.failure)
        if found is not None and found.thumbnail is not None:
            return FoundThumbnail(media, found.thumbnail)
        return await self._made(media, spec)

    async def _dynamic(
        self, media: Media, asked: ThumbnailSpec, fallback: ThumbnailSpec, found: MediaAndThumbnail | None
    ) -> tuple[ThumbnailSpec, MediaAndThumbnail | None]:
        """Prefer exactly what was asked, as long as the media has few enough sizes."""
        exact = await self.media.get_with_thumbnail(media.mxc, asked)
        if exact is not None and exact.thumbnail is not None:
            return asked, exact
        if media.blob is not None and await self.table.count(media.blob) >= self.config.dynamic_sizes_per_media:
            return fallback, found
        return asked, exact

    async def _made(self, media: Media, spec: ThumbnailSpec) -> FoundThumbnail:
        if media.blob is None:
            raise NotFoundError("media not found")
        await self.rendering.render(media.blob, spec)
        found = await self.media.get_with_thumbnail(media.mxc, spec)
        if found is None or found.thumbnail is None:
            raise NotFoundError("media not found")
        return FoundThumbnail(media, found.thumbnail)

    @asynccontextmanager
    async def open(self, found: FoundThumbnail) -> AsyncIterator[StoredObject]:
        """Open a thumbnail's bytes; a pack that S3 has lost is made again, once."""
        async with AsyncExitStack() as stack:
            try:
                stored = await stack.enter_async_context(self._opened(found))
            except ObjectMissingError:
                stored = await stack.enter_async_context(self._opened(await self._made_again(found)))
            yield stored

    def _opened(self, found: FoundThumbnail) -> AbstractAsyncContextManager[StoredObject]:
        thumbnail = found.thumbnail
        if thumbnail.blob == found.media.blob:
            return self.downloads.open_blob(thumbnail.blob)
        span = Span(thumbnail.offset, thumbnail.size_bytes)
        return self.downloads.stores.named(thumbnail.blob.store).open(thumbnail.blob.object_key, span)

    async def _made_again(self, found: FoundThumbnail) -> FoundThumbnail:
        log.error("thumbnails_missing", object_key=found.thumbnail.blob.object_key)
        await self.deleting.delete_pack(found.thumbnail.blob.blob_id)
        return await self._made(found.media, found.thumbnail.spec)
