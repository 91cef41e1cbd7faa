"""Finds media and opens their bytes; waits for uploads; notes last-access times."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from mediarepo.config.cleanup import LastAccessConfig
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.db.media import AccessTable, MediaTable
from mediarepo.errors import ContentLostError, NotFoundError, NotYetUploadedError, UnavailableError
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.concurrency import Waiters
from mediarepo.model.marks import OPERATOR
from mediarepo.model.media import Blob, Media, MediaState
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.quarantine import HashLearner
from mediarepo.services.stores import NOT_OURS, BucketMarkers, Stores
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.stored_object import OpenObject, StoredObject


class AccessTimes:
    """Remembers last accesses until the next flush; a crash loses one interval's worth, which retention can bear."""

    def __init__(
        self, config: LastAccessConfig, table: AccessTable, isolation: BatchIsolation, now_ms: Callable[[], int]
    ) -> None:
        self._config = config
        self._table = table
        self._isolation = isolation
        self._now_ms = now_ms
        self._seen: dict[Mxc, int] = {}

    def note(self, mxc: Mxc) -> None:
        """Remember that media was asked for; beyond the bound, further media wait for the next interval."""
        if len(self._seen) < self._config.max_buffered or mxc in self._seen:
            self._seen[mxc] = self._now_ms()

    async def flush(self) -> int:
        """Write what was gathered and return how many; in an outage it is kept for the next time."""
        seen, self._seen = self._seen, {}
        if not seen:
            return 0

        async def store(mxcs: Sequence[Mxc]) -> int:
            await self._table.store({mxc: seen[mxc] for mxc in mxcs})
            return len(mxcs)

        try:
            await self._isolation.run(Queue.ACCESS_TIMES, list(seen), store)
        except BaseException:
            self._seen = seen | self._seen
            raise
        return len(seen)


_POLL_S = 5.0
"""After so long the database is read anyway: news can be lost, or not pass a connection pooler."""


class UploadWaiter:
    """A watch kept on one mxc; news that come between two waits are not lost."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def wake(self) -> None:
        """End the present wait, or the next one at once."""
        self._news.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait for news, for the time given or until it is time to look anyway."""
        try:
            async with asyncio.timeout(min(timeout_s, _POLL_S)):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()


class UploadWaiters:
    """Wakes whoever watches an mxc; begin to watch first, then read the database, then wait."""

    def __init__(self, limit: int) -> None:
        self.waiters = Waiters("wait for media", limit=limit)
        self._watches: dict[str, set[UploadWaiter]] = {}

    @contextmanager
    def watching(self, mxc: Mxc) -> Iterator[UploadWaiter]:
        """Keep a watch; LimitExceededError when too many are kept already, in all or by the same client."""
        with self.waiters.enter():
            watch, name = UploadWaiter(), str(mxc)
            self._watches.setdefault(name, set()).add(watch)
            try:
                yield watch
            finally:
                self._watches[name].discard(watch)
                if not self._watches[name]:
                    del self._watches[name]

    def news(self, mxc: str) -> None:
        """Wake all who watch an mxc."""
        for watch in self._watches.get(mxc, ()):
            watch.wake()

    def reset(self) -> None:
        """Wake everybody: news may have been lost."""
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()


log = structlog.get_logger(__name__)

OnMissing = Callable[[Blob], Awaitable[None]]
"""Told of a blob that S3 no longer has."""


_READ_THROUGH_POLL_S = 1.0
"""How often those who wait for content look back, as nobody brings news from there."""


class ReadThroughSource(Protocol):
    """Looks media up where they were kept before."""

    async def import_media(self, mxc: Mxc, *, unauthenticated: bool) -> bool:
        """Say whether there is news of them, so that they must be read anew."""
        ...

    async def refresh_media(self, mxc: Mxc, source_id: int) -> bool:
        """Say whether media that were imported have been changed there since, so that they must be read anew."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOptions:
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
    tenants: Homeservers
    markers: BucketMarkers
    access_times: AccessTimes
    upload_waiters: UploadWaiters
    hashing: HashLearner
    on_missing: Callable[[], None]
    read_through: ReadThroughSource | None = None

    async def find(self, mxc: Mxc, options: DownloadOptions) -> Media:
        """Read media that the asker may have; NotFoundError tells nobody why not."""
        return await self.judge(mxc, await self.read(mxc, options), options)

    async def read(self, mxc: Mxc, options: DownloadOptions) -> Media | None:
        """Read media, as they are here or, if they have not moved in yet, where they were before."""
        media = await self.media.get(mxc, options.viewer)
        return await self.media.get(mxc, options.viewer) if await self.has_news(mxc, media, options) else media

    async def has_news(self, mxc: Mxc, media: Media | None, options: DownloadOptions) -> bool:
        """Look media up where they were kept before; True when they must be read anew.

        That is done for those that are not here, and for those that came from there: they may have been hidden since.
        """
        if self.read_through is None or (media is not None and media.hidden):
            return False
        if media is None or media.state in {MediaState.PENDING, MediaState.MISSING}:
            return await self.read_through.import_media(mxc, unauthenticated=options.legacy)
        if media.state is not MediaState.READY or media.import_source_id is None:
            return False
        return await self.read_through.refresh_media(mxc, media.import_source_id)

    async def judge(self, mxc: Mxc, media: Media | None, options: DownloadOptions) -> Media:
        """Let media just read through, waiting for their content or its hash if need be, or refuse them."""
        if media is not None and media.state is MediaState.PENDING and options.wait_ms:
            media = await self.wait_for_content(mxc, options)
        if media is not None and await self.learn_unverified_hash(media):  # last: also of what came meanwhile
            media = await self.media.get(mxc, options.viewer)
        return self.permit(media, options)

    async def learn_unverified_hash(self, media: Media) -> bool:
        """Learn the hash of content that may be a hidden one; says whether the media must be read anew."""
        if not media.suspect or media.blob is None:
            return False
        await self.hashing.learn(media.blob)
        return True

    async def wait_for_content(self, mxc: Mxc, options: DownloadOptions) -> Media | None:
        """Wait until announced media have their content, or for as long as the asker will, and read them."""
        loop = asyncio.get_running_loop()
        until = loop.time() + options.wait_ms / 1000
        with self.upload_waiters.watching(mxc) as watch:
            while True:
                media = await self.read(mxc, options)
                remaining_s = until - loop.time()
                if media is None or media.state is not MediaState.PENDING or remaining_s <= 0:
                    return media
                await watch.wait(remaining_s if self.read_through is None else min(remaining_s, _READ_THROUGH_POLL_S))

    def permit(self, media: Media | None, options: DownloadOptions) -> Media:
        """Let media through, or refuse it: absent, hidden and frozen media all look the same."""
        if media is None or (media.hidden and not options.see_hidden):
            raise NotFoundError("media not found")
        if media.state is MediaState.PENDING:
            raise NotYetUploadedError("the media has not been uploaded yet")
        if media.state is not MediaState.READY or (options.legacy and self._frozen(media, options)):
            raise NotFoundError("media not found")
        self.access_times.note(media.mxc)
        return media

    def _frozen(self, media: Media, options: DownloadOptions) -> bool:
        """Judge the freeze by the homeserver that has the media, and by the one that is asked (since Matrix 1.12)."""
        judges = [self.tenants.by_server_name(media.mxc.server_name), options.tenant]
        return media.authenticated and any(judge is not None and judge.freeze_legacy for judge in judges)

    def open(self, media: Media, byte_range: ByteRange | None = None) -> "OpenBlob":
        """Open media's bytes, or a stretch of them; S3 has answered when this is entered."""
        if media.blob is None:
            raise NotFoundError("media not found")
        return self.open_blob(media.blob, byte_range)

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

    def open_blob(
        self, blob: Blob, byte_range: ByteRange | None = None, *, on_missing: OnMissing | None = None
    ) -> "OpenBlob":
        """Open a blob's bytes; ContentLostError when S3 has lost them: then its media are marked missing.

        `on_missing` is done instead of that.
        """
        opening = self.stores.named(blob.store).open(blob.object_key, byte_range, known_bytes=blob.size_bytes)
        return OpenBlob(opening, blob, on_missing or self.note_missing)

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
