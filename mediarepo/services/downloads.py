"""From an mxc address to bytes, or to the refusal."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.db.media import MediaTable
from mediarepo.errors import ContentLostError, NotFoundError, NotYetUploadedError, UnavailableError
from mediarepo.homeserver.tenants import Tenants
from mediarepo.model.byte_stream import Span
from mediarepo.model.marks import OPERATOR
from mediarepo.model.media import Blob, Media, MediaState
from mediarepo.model.mxc import Mxc
from mediarepo.services.access_times import AccessTimes
from mediarepo.services.arrivals import Arrivals
from mediarepo.services.hashing import Hashing
from mediarepo.services.markers import NOT_OURS, Markers
from mediarepo.services.stores import Stores
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.objects import Opening, StoredObject

log = structlog.get_logger(__name__)

OnMissing = Callable[[Blob], Awaitable[None]]
"""Told of a blob that S3 no longer has."""


_LOOK_BACK_S = 1.0
"""How often those who wait for content look back, as nobody brings news from there."""


class LookBack(Protocol):
    """Looks media up where they were kept before."""

    async def look_back(self, mxc: Mxc, *, by_stranger: bool) -> bool:
        """Say whether there is news of them, so that they must be read anew."""
        ...

    async def look_again(self, mxc: Mxc, source_id: int) -> bool:
        """Say whether media that were imported have been changed there since, so that they must be read anew."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """On which terms media is asked for.

    At which homeserver, whether on the unauthenticated legacy paths, how long content that is to follow may take,
    whether another server may be asked, and whether an admin wants to see what is hidden.
    """

    tenant: HomeserverConfig | None
    legacy: bool = False
    wait_ms: int = 0
    allow_remote: bool = True
    see_hidden: bool = False

    @property
    def viewer(self) -> str:
        """The homeserver whose users ask, as whom quarantine is judged."""
        return OPERATOR if self.tenant is None else self.tenant.server_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """Finds media and opens its bytes."""

    media: MediaTable
    stores: Stores
    tenants: Tenants
    markers: Markers
    access_times: AccessTimes
    arrivals: Arrivals
    hashing: Hashing
    on_missing: Callable[[], None]
    look_back: LookBack | None = None

    async def find(self, mxc: Mxc, asking: Asking) -> Media:
        """Read media that the asker may have; NotFoundError tells nobody why not."""
        return await self.judge(mxc, await self.read(mxc, asking), asking)

    async def read(self, mxc: Mxc, asking: Asking) -> Media | None:
        """Read media, as they are here or, if they have not moved in yet, where they were before."""
        media = await self.media.get(mxc, asking.viewer)
        return await self.media.get(mxc, asking.viewer) if await self.has_news(mxc, media, asking) else media

    async def has_news(self, mxc: Mxc, media: Media | None, asking: Asking) -> bool:
        """Look media up where they were kept before; True when they must be read anew.

        That is done for those that are not here, and for those that came from there: they may have been hidden since.
        """
        if self.look_back is None or (media is not None and media.hidden):
            return False
        if media is None or media.state in {MediaState.PENDING, MediaState.MISSING}:
            return await self.look_back.look_back(mxc, by_stranger=asking.legacy)
        if media.state is not MediaState.READY or media.import_source_id is None:
            return False
        return await self.look_back.look_again(mxc, media.import_source_id)

    async def judge(self, mxc: Mxc, media: Media | None, asking: Asking) -> Media:
        """Let media just read through, waiting for their content or its hash if need be, or refuse them."""
        if media is not None and await self.clear_suspicion(media):
            media = await self.media.get(mxc, asking.viewer)
        if media is not None and media.state is MediaState.PENDING and asking.wait_ms:
            media = await self.wait_for_content(mxc, asking)
        return self.permit(media, asking)

    async def clear_suspicion(self, media: Media) -> bool:
        """Learn the hash of content that may be a hidden one; says whether the media must be read anew."""
        if not media.suspect or media.blob is None:
            return False
        await self.hashing.learn(media.blob)
        return True

    async def wait_for_content(self, mxc: Mxc, asking: Asking) -> Media | None:
        """Wait until announced media have their content, or for as long as the asker will, and read them."""
        loop = asyncio.get_running_loop()
        until = loop.time() + asking.wait_ms / 1000
        with self.arrivals.watching(mxc) as watch:
            while True:
                media = await self.read(mxc, asking)
                remaining_s = until - loop.time()
                if media is None or media.state is not MediaState.PENDING or remaining_s <= 0:
                    return media
                await watch.wait(remaining_s if self.look_back is None else min(remaining_s, _LOOK_BACK_S))

    def permit(self, media: Media | None, asking: Asking) -> Media:
        """Let media through, or refuse it: absent, hidden and frozen media all look the same."""
        if media is None or (media.hidden and not asking.see_hidden):
            raise NotFoundError("media not found")
        if media.state is MediaState.PENDING:
            raise NotYetUploadedError("the media has not been uploaded yet")
        if media.state is not MediaState.READY or (asking.legacy and self._frozen(media, asking)):
            raise NotFoundError("media not found")
        self.access_times.note(media.mxc)
        return media

    def _frozen(self, media: Media, asking: Asking) -> bool:
        """Judge the freeze by the homeserver that has the media, and by the one that is asked (since Matrix 1.12)."""
        judges = [self.tenants.by_server_name(media.mxc.server_name), asking.tenant]
        return media.authenticated and any(judge is not None and judge.freeze_legacy for judge in judges)

    def open(self, media: Media, span: Span | None = None) -> "OpeningBlob":
        """Open media's bytes, or a stretch of them; S3 has answered when this is entered."""
        if media.blob is None:
            raise NotFoundError("media not found")
        return self.open_blob(media.blob, span)

    async def presign(self, media: Media, *, lifetime_s: int, content_disposition: str) -> str:
        """Make a URL at which S3 itself gives out media's bytes."""
        if media.blob is None:
            raise NotFoundError("media not found")
        return await self.stores.named(media.blob.store).presign(
            media.blob.object_key,
            lifetime_s=lifetime_s,
            content_type=media.content_type,
            content_disposition=content_disposition,
        )

    def open_blob(self, blob: Blob, span: Span | None = None, *, on_missing: OnMissing | None = None) -> "OpeningBlob":
        """Open a blob's bytes; ContentLostError when S3 has lost them: then its media are marked missing.

        `on_missing` is done instead of that.
        """
        opening = self.stores.named(blob.store).open(blob.object_key, span, known_bytes=blob.size_bytes)
        return OpeningBlob(opening, blob, on_missing or self.note_missing)

    async def note_missing(self, blob: Blob) -> None:
        """Mark media missing, but only once it is certain that this is the right bucket at all."""
        await self.check_bucket(blob)
        log.error("object_missing", store=blob.store, object_key=blob.object_key, blob_id=blob.blob_id)
        self.on_missing()
        await self.media.mark_missing(blob)

    async def check_bucket(self, blob: Blob) -> None:
        """Refuse with UnavailableError when a blob's bucket is not ours: nothing missing there is lost."""
        store = self.stores.named(blob.store)
        if not await self.markers.is_ours(store):
            log.error("bucket_is_not_ours", store=store.name, object_key=blob.object_key, help=NOT_OURS)
            raise UnavailableError("storage cannot be reached just now", retry_after_s=60)


class OpeningBlob:
    """A blob that is being opened."""

    __slots__ = ("_blob", "_on_missing", "_opening")

    def __init__(self, opening: Opening, blob: Blob, on_missing: OnMissing) -> None:
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
