"""From an mxc address to a thumbnail: kept, made now, or refused for good."""

from dataclasses import dataclass

import structlog

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.db.deletion import Deleting
from mediarepo.db.media import MediaAndThumbnail, MediaTable, ThumbnailTable
from mediarepo.errors import ContentLostError, NotFoundError
from mediarepo.model.byte_stream import Span
from mediarepo.model.media import Blob, Media, MediaState, Thumbnail, ThumbnailSpec
from mediarepo.model.mxc import Mxc
from mediarepo.services.downloads import Asking, Downloads, OpeningBlob
from mediarepo.services.remote_media import RemoteMedia
from mediarepo.services.rendering import Rendering, refusal_of_failure
from mediarepo.services.thumbnail_sizes import configured_spec

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
        found = await self.media.get_with_thumbnail(mxc, spec, asking.viewer)
        if await self.downloads.has_news(mxc, None if found is None else found.media, asking):
            found = await self.media.get_with_thumbnail(mxc, spec, asking.viewer)
        if await self.remote.ensure(mxc, None if found is None else found.media, asking):
            found = await self.media.get_with_thumbnail(mxc, spec, asking.viewer)
        if found is not None and found.media.state is MediaState.PENDING and asking.wait_ms:
            await self.downloads.wait_for_content(mxc, asking)
            found = await self.media.get_with_thumbnail(mxc, spec, asking.viewer)
        if found is not None and await self.downloads.clear_suspicion(found.media):
            found = await self.media.get_with_thumbnail(mxc, spec, asking.viewer)
        media = self.downloads.permit(None if found is None else found.media, asking)
        if self.config.dynamic_sizes and asked != spec:
            spec, found = await self._dynamic(media, asked, spec, found, asking)
        if found is not None and found.thumbnail is not None:
            return FoundThumbnail(media, found.thumbnail)
        if found is not None and found.failure is not None:
            raise refusal_of_failure(found.failure)
        return await self._made(media, spec, asking)

    async def _dynamic(
        self,
        media: Media,
        asked: ThumbnailSpec,
        fallback: ThumbnailSpec,
        found: MediaAndThumbnail | None,
        asking: Asking,
    ) -> tuple[ThumbnailSpec, MediaAndThumbnail | None]:
        """Prefer exactly what was asked, as long as the media has few enough sizes and its content can be rendered."""
        exact = await self.media.get_with_thumbnail(media.mxc, asked, asking.viewer)
        if exact is not None and exact.thumbnail is not None:
            return asked, exact
        if exact is not None and exact.failure is not None:
            return fallback, found
        if media.blob is not None and await self.table.count(media.blob) >= self.config.dynamic_sizes_per_media:
            return fallback, found
        return asked, exact

    async def _made(self, media: Media, spec: ThumbnailSpec, asking: Asking) -> FoundThumbnail:
        if media.blob is None:
            raise NotFoundError("media not found")
        await self.rendering.render(media.blob, spec)
        found = await self.media.get_with_thumbnail(media.mxc, spec, asking.viewer)
        if found is None or found.thumbnail is None or (found.media.hidden and not asking.see_hidden):
            raise NotFoundError("media not found")
        return FoundThumbnail(media, found.thumbnail)

    def open(self, found: FoundThumbnail) -> OpeningBlob:
        """Open a thumbnail's bytes; ContentLostError when S3 has lost them: find it anew, and it is made again."""
        thumbnail = found.thumbnail
        if thumbnail.blob == found.media.blob:
            return self.downloads.open_blob(thumbnail.blob)
        span = Span(thumbnail.offset, thumbnail.size_bytes)
        return self.downloads.open_blob(thumbnail.blob, span, on_missing=self._forget_pack)

    async def _forget_pack(self, pack: Blob) -> None:
        await self.downloads.check_bucket(pack)
        log.error("thumbnails_missing", store=pack.store, object_key=pack.object_key)
        await self.deleting.delete_packs([pack.blob_id])
