"""Tells what media are, to those who may have them."""

from dataclasses import dataclass, replace

from mediarepo.db.pictures import ContentFactsTable
from mediarepo.errors import CannotThumbnailError, NotFoundError, TooLargeError
from mediarepo.model.media import Blob, ContentFacts, Media
from mediarepo.model.mxc import Mxc
from mediarepo.services.access import MediaAccess
from mediarepo.services.access_policy import DownloadOptions
from mediarepo.services.thumbnails import ThumbnailRenderer


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Media, the length of their content, and what is known of it."""

    media: Media
    size_bytes: int
    content: ContentFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfoReader:
    """Reads what is known of media; pictures that were not looked at yet are thumbnailed for it."""

    access: MediaAccess
    rendering: ThumbnailRenderer
    table: ContentFactsTable

    async def get(self, mxc: Mxc, options: DownloadOptions) -> MediaInfo:
        """Return what is known of media, as far as the requester may have them.

        Raises what `MediaAccess.find` raises, LimitExceededError and UnavailableError.
        """
        blob, info = await self._read(mxc, options)
        if info.content.picture is not None or info.content.has_failed:
            return info
        try:
            await self.rendering.render(blob, self.rendering.config.specs[0])
        except (CannotThumbnailError, TooLargeError):
            return info
        # The media may have been quarantined or deleted meanwhile.
        return (await self._read(mxc, replace(options, allow_remote=False, wait_ms=0)))[1]

    async def _read(self, mxc: Mxc, options: DownloadOptions) -> tuple[Blob, MediaInfo]:
        media = (await self.access.find(mxc, options)).media
        content = None if media.blob is None else await self.table.get(media.blob)
        if media.blob is None or content is None:
            raise NotFoundError("media not found")
        return media.blob, MediaInfo(media, media.blob.size_bytes, content)
