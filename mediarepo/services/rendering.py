"""One render job: the source's bytes into a worker, the finished thumbnails into S3, then the rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.db.media import ThumbnailTable
from mediarepo.errors import CannotThumbnailError, MatrixError, NotFoundError, TooLargeError, UnavailableError
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.source_memory import SourceBudget
from mediarepo.images.worker_pool import Rendered, WorkerPool
from mediarepo.model.admission import Admission
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import Blob, NewObject, StoreClass, ThumbnailSpec
from mediarepo.services.downloads import Downloads
from mediarepo.services.stores import Stores

log = structlog.get_logger(__name__)


def refusal_of_failure(message: str) -> MatrixError:
    """Say why media have no thumbnail, from the words that are remembered of the failure."""
    if message == PictureError(Reason.TOO_MANY_PIXELS).message:
        return TooLargeError("the media has too many pixels to be thumbnailed")
    return CannotThumbnailError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """Makes thumbnails; equal jobs are done once, and content that cannot be thumbnailed is remembered."""

    config: ThumbnailsConfig
    pool: WorkerPool
    sources: SourceBudget
    table: ThumbnailTable
    stores: Stores
    downloads: Downloads
    flights: SingleFlight[None]
    places: Admission
    now_ms: Callable[[], int]
    on_job: Callable[[str], None]

    async def render(self, source: Blob, spec: ThumbnailSpec) -> None:
        """Make the thumbnail that is asked for, and with a still one of a configured size all its siblings."""
        if source.size_bytes > self.config.max_source_bytes:
            raise TooLargeError("the media is too large to be thumbnailed")
        together = not spec.animated and spec in self.config.specs
        specs = self.config.specs if together else [spec]
        key = (source.blob_id, None if together else spec)
        await self.flights.run(key, lambda: self._render(source, specs, animated=spec.animated))

    async def _render(self, source: Blob, specs: Sequence[ThumbnailSpec], *, animated: bool) -> None:
        try:
            rendered = await self._rendered(source, specs)
        except PictureError as exc:
            await self._note_failure(source, exc, animated=animated)
            raise refusal_of_failure(exc.message) from exc
        pack = await self._store_pack(rendered)
        if not await self.table.store(source, rendered.thumbnails, pack):
            raise NotFoundError("media not found")
        self.on_job("made")

    async def _note_failure(self, source: Blob, error: PictureError, *, animated: bool) -> None:
        """Remember what is the file's fault; for what may be the moment's, ask to try again."""
        momentary = error.reason.is_momentary
        remembered = await self.table.note_failure(source, error.message, animated=animated, momentary=momentary)
        self.on_job("refused" if remembered else "failed")
        log.info("cannot_thumbnail", blob_id=source.blob_id, reason=error.message, remembered=remembered)
        if not remembered:
            raise UnavailableError("the thumbnail could not be made just now", retry_after_s=5) from error

    async def _rendered(self, source: Blob, specs: Sequence[ThumbnailSpec]) -> Rendered:
        async with self.places.enter(), self.sources.reserve(source.size_bytes) as memory:
            async with self.downloads.open_blob(source) as stored:
                if stored.size_bytes != source.size_bytes:
                    log.error("object_has_wrong_size", expected=source.size_bytes, found=stored.size_bytes)
                    raise UnavailableError("the stored object does not have the size it should have", retry_after_s=60)
                await stored.send_to(memory)
            return await self.pool.render(memory, specs)

    async def _store_pack(self, rendered: Rendered) -> NewObject | None:
        """Put all pictures into one object; None when the source's own bytes serve for each."""
        if not rendered.data:
            return None
        store, key_ts = self.stores.taking(StoreClass.THUMBNAILS), self.now_ms()
        object_key = new_object_key(store.prefix, StoreClass.THUMBNAILS, key_ts)
        size_bytes = len(rendered.data)
        await store.put(object_key, [rendered.data], size_bytes=size_bytes, metadata={})
        return NewObject(store=store.name, object_key=object_key, key_ts=key_ts, size_bytes=size_bytes, sha256=None)
