"""Finds kept thumbnails, or renders them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.db.media import ThumbnailTable
from mediarepo.db.sweep import UploadIntents
from mediarepo.errors import (
    CannotThumbnailError,
    MatrixError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.worker_pool import Rendered, SourceBudget, WorkerPool
from mediarepo.model.concurrency import Admission, SingleFlight
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import (
    Blob,
    FoundMedia,
    Media,
    NewObject,
    StoreClass,
    ThumbnailMethod,
    ThumbnailSpec,
)
from mediarepo.model.mxc import Mxc
from mediarepo.services.access import MediaAccess
from mediarepo.services.access_policy import DownloadOptions
from mediarepo.services.stored_content import StoredContent
from mediarepo.services.stores import Stores


def configured_spec(sizes: Sequence[ThumbnailSpec], asked: ThumbnailSpec) -> ThumbnailSpec:
    """Pick the smallest configured size that covers what was asked.

    Where one of the other method is much nearer, that size is made by the method that was asked for as well. Failing
    one of the same method, the other method's answers, since a client wants at least what it asked for; failing that,
    the largest.
    """
    covering = [size for size in sizes if size.width >= asked.width and size.height >= asked.height]
    same = min((size for size in covering if size.method is asked.method), key=_area, default=None)
    other = min((size for size in covering if size.method is not asked.method), key=_area, default=None)
    if same is not None and other is not None and _area(other) < _area(same):
        return ThumbnailSpec(other.width, other.height, asked.method, asked.animated)
    if same is not None or other is not None:
        return _animated_like(same or other or asked, asked)
    return _animated_like(max(sizes, key=lambda size: (_area(size), size.method is asked.method)), asked)


def _area(size: ThumbnailSpec) -> int:
    return size.width * size.height


def _animated_like(size: ThumbnailSpec, asked: ThumbnailSpec) -> ThumbnailSpec:
    return ThumbnailSpec(size.width, size.height, ThumbnailMethod(size.method), asked.animated)


log = structlog.get_logger(__name__)


def error_for_failure(message: str) -> MatrixError:
    """Say why media have no thumbnail, from the words that are remembered of the failure."""
    if message == PictureError(Reason.TOO_MANY_PIXELS).message:
        return TooLargeError("the media has too many pixels to be thumbnailed")
    return CannotThumbnailError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailRenderer:
    """Makes thumbnails; equal jobs are done once, and content that cannot be thumbnailed is remembered."""

    config: ThumbnailsConfig
    pool: WorkerPool
    sources: SourceBudget
    table: ThumbnailTable
    stores: Stores
    upload_intents: UploadIntents
    contents: StoredContent
    remote_fetches: SingleFlight[None]
    places: Admission
    now_ms: Callable[[], int]
    on_job: Callable[[str], None]
    on_failure: Callable[[str], None]

    async def render(self, source: Blob, spec: ThumbnailSpec) -> None:
        """Render the requested thumbnail, and with a still one of a configured size all its siblings.

        Raises TooLargeError when the source is larger than the limit.
        """
        if source.size_bytes > self.config.max_source_bytes:
            raise TooLargeError("the media is too large to be thumbnailed")
        together = not spec.animated and spec in self.config.specs
        specs = self.config.specs if together else [spec]
        key = (source.blob_id, None if together else spec)
        await self.remote_fetches.run(key, lambda: self._render(source, specs, animated=spec.animated))

    async def _render(self, source: Blob, specs: Sequence[ThumbnailSpec], *, animated: bool) -> None:
        try:
            rendered = await self._rendered(source, specs)
        except PictureError as exc:
            await self._note_failure(source, exc, animated=animated)
            raise error_for_failure(exc.message) from exc
        pack = await self._store_pack(rendered)
        if not await self.table.store(source, rendered.thumbnails, pack, rendered.facts):
            raise NotFoundError("media not found")
        self.on_job("made")

    async def _note_failure(self, source: Blob, error: PictureError, *, animated: bool) -> None:
        """Remember what is the file's fault; for what may be the moment's, ask to try again."""
        remembered = await self.table.note_failure(
            source,
            error.message,
            animated=animated,
            momentary=error.reason.is_momentary,
            for_ever=not error.reason.may_be_switched_on,
        )
        self.on_job("refused" if remembered else "failed")
        self.on_failure(error.reason)
        log.info("thumbnail_failed", blob_id=source.blob_id, reason=error.message, remembered=remembered)
        if not remembered:
            raise UnavailableError("the thumbnail could not be made just now", retry_after_s=5) from error

    async def _rendered(self, source: Blob, specs: Sequence[ThumbnailSpec]) -> Rendered:
        async with self.places.enter(), self.sources.reserve(source.size_bytes) as memory:
            async with self.contents.open(source) as stored:
                if stored.size_bytes != source.size_bytes:
                    log.error("object_has_wrong_size", expected=source.size_bytes, found=stored.size_bytes)
                    raise UnavailableError("the stored object does not have the size it should have", retry_after_s=60)
                await stored.send_to(memory)
            return await self.pool.render(memory, specs)

    async def _store_pack(self, rendered: Rendered) -> NewObject | None:
        """Put all pictures into one object; None when the source's own bytes serve for each."""
        if not rendered.data:
            return None
        store, key_ts = self.stores.store_for_class(StoreClass.THUMBNAILS), self.now_ms()
        object_key = new_object_key(store.prefix, StoreClass.THUMBNAILS, key_ts, intended=True)
        size_bytes = len(rendered.data)
        await self.upload_intents.begin(store.name, object_key)
        await store.put(object_key, [rendered.data], size_bytes=size_bytes, metadata={})
        return NewObject(store=store.name, object_key=object_key, key_ts=key_ts, size_bytes=size_bytes, sha256=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnails:
    """Finds thumbnails, and renders them on the first request."""

    config: ThumbnailsConfig
    table: ThumbnailTable
    access: MediaAccess
    rendering: ThumbnailRenderer

    async def find(self, mxc: Mxc, asked: ThumbnailSpec, options: DownloadOptions) -> FoundMedia:
        """Return media with the thumbnail that answers a request.

        Raises CannotThumbnailError when the media has none, TooLargeError when it is too large for one, and whatever
        `MediaAccess.find` raises; after ContentLostError another try may find the content again.
        """
        spec = configured_spec(self.config.specs, asked)
        found = await self.access.find(mxc, options, thumbnail=spec)
        if self.config.dynamic_sizes and asked != spec:
            spec, found = await self._dynamic(found, asked, spec, options)
        if found.thumbnail is not None:
            return found
        if found.failure is not None:
            raise error_for_failure(found.failure)
        return await self._made(found.media, spec, options)

    async def _dynamic(
        self, found: FoundMedia, asked: ThumbnailSpec, fallback: ThumbnailSpec, options: DownloadOptions
    ) -> tuple[ThumbnailSpec, FoundMedia]:
        """Prefer exactly what was asked, as long as the media has few enough sizes and its content can be rendered."""
        media = found.media
        exact = await self.access.find(media.mxc, options, thumbnail=asked)
        if exact.thumbnail is not None:
            return asked, exact
        if exact.failure is not None:
            return fallback, found
        if media.blob is not None and await self.table.count(media.blob) >= self.config.dynamic_sizes_per_media:
            return fallback, found
        return asked, exact

    async def _made(self, media: Media, spec: ThumbnailSpec, options: DownloadOptions) -> FoundMedia:
        """Render, and find again: the media may have been quarantined or deleted meanwhile."""
        if media.blob is None:
            raise NotFoundError("media not found")
        await self.rendering.render(media.blob, spec)
        found = await self.access.find(media.mxc, options, thumbnail=spec)
        if found.thumbnail is None:
            raise NotFoundError("media not found")
        return found
