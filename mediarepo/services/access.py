"""The access pipeline: whether a requester may have media, and where its bytes are.

Every path that serves media asks it. The steps stand in `MediaAccess.steps`, in their order; the rules are in
`mediarepo.services.access_policy`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from mediarepo.db.cache_lease import CacheLease
from mediarepo.db.media import MediaTable
from mediarepo.errors import ContentLostError, NotFoundError, UnavailableError
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.byte_stream import ByteRange, Sink
from mediarepo.model.import_source import ReadThroughSource
from mediarepo.model.media import Blob, FoundMedia, Media, ThumbnailSpec
from mediarepo.model.mxc import Mxc
from mediarepo.services.access_policy import (
    DownloadOptions,
    check_access,
    import_source_of,
    is_awaited,
    may_be_cached,
    may_be_imported,
    unverified_blob,
)
from mediarepo.services.access_times import AccessTimes
from mediarepo.services.quarantine import HashLearner
from mediarepo.services.remote_media import RemoteMedia
from mediarepo.services.stored_content import OpenBlob, StoredContent
from mediarepo.services.tee import TeeView
from mediarepo.services.upload_waiters import UploadWaiters

_READ_THROUGH_POLL_S = 1.0
"""How often a waiting request asks the import source again, as nobody notifies us of uploads there."""
_MAX_CACHED_S = 5.0
"""How long a row is served from memory at most."""
_MAX_HASHES = 3
"""How many contents one request may compute the hash of: the media may get other content meanwhile."""


_CacheKey = tuple[Mxc, str, ThumbnailSpec | None]


class MediaCache:
    """Finds media in memory while the lease holds, else in the database; at most `limit` rows are kept."""

    def __init__(
        self,
        table: MediaTable,
        lease: CacheLease,
        *,
        limit: int,
        on_hit: Callable[[], None] = lambda: None,
        on_miss: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_hit = on_hit
        self._on_miss = on_miss
        self._table = table
        self._lease = lease
        self._limit = limit
        self._epoch = lease.epoch
        self._rows: dict[_CacheKey, tuple[FoundMedia, float]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    async def find(self, mxc: Mxc, viewer: str, spec: ThumbnailSpec | None = None) -> FoundMedia | None:
        """Find media as `MediaTable.find` does, maybe in memory. Raises UnavailableError."""
        lease = self._lease
        if not self._limit or not lease.holds:
            return await self._table.find(mxc, viewer, spec)
        if self._epoch != lease.epoch:
            self._rows.clear()
            self._epoch = lease.epoch
        key, now = (mxc, viewer, spec), asyncio.get_running_loop().time()
        kept = self._rows.get(key)
        if kept is not None and kept[1] > now:
            self._on_hit()
            return kept[0]
        self._on_miss()
        epoch = lease.epoch
        found = await self._table.find(mxc, viewer, spec)
        if found is not None and may_be_cached(found, spec) and epoch == lease.epoch == self._epoch:
            self._keep(key, found, now + _MAX_CACHED_S)
        return found

    async def find_now(self, mxc: Mxc, viewer: str, spec: ThumbnailSpec | None = None) -> FoundMedia | None:
        """Find media in the database, as they are now. Raises UnavailableError."""
        return await self._table.find(mxc, viewer, spec)

    def _keep(self, key: _CacheKey, found: FoundMedia, until: float) -> None:
        self._rows.pop(key, None)
        if len(self._rows) >= self._limit:
            del self._rows[next(iter(self._rows))]
        self._rows[key] = (found, until)


@dataclass(slots=True)
class _Lookup:
    """One request on its way through the steps; a step may replace the row, or end the lookup with a `tee`."""

    mxc: Mxc
    options: DownloadOptions
    thumbnail: ThumbnailSpec | None
    arriving: bool
    found: FoundMedia | None = None
    tee: TeeView | None = None

    @property
    def media(self) -> Media | None:
        return None if self.found is None else self.found.media


class MediaAccess:
    """Finds media that a requester may have, and opens its bytes."""

    def __init__(
        self,
        *,
        media: MediaCache,
        contents: StoredContent,
        tenants: Homeservers,
        access_times: AccessTimes,
        upload_waiters: UploadWaiters,
        hashing: HashLearner,
        remote: RemoteMedia,
        read_through: ReadThroughSource | None = None,
    ) -> None:
        self._media = media
        self._contents = contents
        self._tenants = tenants
        self._access_times = access_times
        self._upload_waiters = upload_waiters
        self._hashing = hashing
        self._remote = remote
        self._source = read_through
        self.steps: tuple[Callable[[_Lookup], Awaitable[None]], ...] = (
            self._refuse_denied_server,
            self._read_row,
            self._read_through,
            self._fetch_remote,
            self._wait_for_content,
            self._learn_hash,  # after every wait: also of content that has come meanwhile
            self._check,
        )

    async def find(self, mxc: Mxc, options: DownloadOptions, *, thumbnail: ThumbnailSpec | None = None) -> FoundMedia:
        """Return media whose content is stored, with one of its thumbnails if that is asked for and stored.

        Raises NotFoundError (of which ContentLostError says that another try may fetch the content again),
        NotYetUploadedError, RemoteUnavailableError, RemoteTooLargeError, LimitExceededError, and UnavailableError.
        """
        found = (await self._run(_Lookup(mxc, options, thumbnail, arriving=False))).found
        if found is None:
            raise NotFoundError("media not found")
        return found

    async def find_or_tee(self, mxc: Mxc, options: DownloadOptions) -> FoundMedia | TeeView:
        """Return stored media, or the tee of remote media that is just arriving.

        Raises what `find` raises, among it NotFoundError.
        """
        lookup = await self._run(_Lookup(mxc, options, None, arriving=True))
        if lookup.tee is not None:
            return lookup.tee
        if lookup.found is None:
            raise NotFoundError("media not found")
        return lookup.found

    async def _run(self, lookup: _Lookup) -> _Lookup:
        for step in self.steps:
            await step(lookup)
            if lookup.tee is not None:
                break
        return lookup

    async def _refuse_denied_server(self, lookup: _Lookup) -> None:
        self._remote.check_allowed(lookup.mxc)

    async def _read_row(self, lookup: _Lookup) -> None:
        """Find media, content, quarantine and thumbnail in memory, or by one query."""
        lookup.found = await self._media.find(lookup.mxc, lookup.options.viewer, lookup.thumbnail)

    async def _read_row_again(self, lookup: _Lookup) -> None:
        """Read what may have changed meanwhile."""
        lookup.found = await self._media.find_now(lookup.mxc, lookup.options.viewer, lookup.thumbnail)

    async def _read_through(self, lookup: _Lookup) -> None:
        """Import what is not here; ask about what was imported, as it may have been quarantined at its source since."""
        if self._source is None:
            return
        media, changed = lookup.media, False
        if may_be_imported(media):
            changed = await self._source.import_media(lookup.mxc, unauthenticated=lookup.options.legacy)
        elif media is not None and (source_id := import_source_of(media)) is not None:
            changed = await self._source.refresh_media(lookup.mxc, source_id)
        if changed:
            await self._read_row_again(lookup)

    async def _fetch_remote(self, lookup: _Lookup) -> None:
        """Fetch another server's media that is not kept here; with `arriving`, a tee of it will do."""
        options = lookup.options
        if not self._remote.has_to_fetch(lookup.mxc, lookup.media, options):
            return
        fetch = await self._remote.fetch(lookup.mxc, options, teed=lookup.arriving)
        if fetch is None:
            await self._read_row_again(lookup)
        else:
            lookup.tee = fetch.seen_by(options.viewer, partial(self._send_rest, lookup.mxc, options))

    async def _wait_for_content(self, lookup: _Lookup) -> None:
        """Wait until a pending upload has its content, for at most the requester's time."""
        if not is_awaited(lookup.media, lookup.options) or not lookup.options.wait_ms:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + lookup.options.wait_ms / 1000
        with self._upload_waiters.watching(lookup.mxc) as watch:
            while True:
                await self._read_row_again(lookup)
                await self._read_through(lookup)
                remaining_s = until - loop.time()
                if not is_awaited(lookup.media, lookup.options) or remaining_s <= 0:
                    return
                await watch.wait(remaining_s if self._source is None else min(remaining_s, _READ_THROUGH_POLL_S))

    async def _learn_hash(self, lookup: _Lookup) -> None:
        """Compute a hash that may be a quarantined one; what cannot be read for it is lost, thumbnails included."""
        learnt: Blob | None = None
        for _ in range(_MAX_HASHES):
            blob = unverified_blob(lookup.media)
            if blob is None:
                return
            if blob == learnt:
                await self._contents.note_missing(blob)
                raise ContentLostError("media not found")
            await self._hashing.learn(blob)
            learnt = blob
            await self._read_row_again(lookup)
        if unverified_blob(lookup.media) is not None:
            raise UnavailableError("the content changes; try again", retry_after_s=1)

    async def _check(self, lookup: _Lookup) -> None:
        """Refuse what the requester may not have: one answer for all reasons."""
        media = check_access(lookup.media, lookup.options, frozen=self._is_frozen(lookup))
        self._access_times.note(media.mxc)

    def _is_frozen(self, lookup: _Lookup) -> bool:
        """Apply the freeze of the homeserver that has the media, and of the one that is asked (since Matrix 1.12)."""
        if not lookup.options.legacy:
            return False
        homeservers = (self._tenants.by_server_name(lookup.mxc.server_name), lookup.options.tenant)
        return any(homeserver is not None and homeserver.freeze_legacy for homeserver in homeservers)

    def open(self, found: FoundMedia, byte_range: ByteRange | None = None) -> OpenBlob:
        """Open the bytes of media, or of the thumbnail that was found with it; S3 has answered when this is entered.

        Entering raises ContentLostError when S3 has lost them: find the media again, and they may be fetched or
        rendered anew. Raises NotFoundError when there is no content.
        """
        if found.thumbnail is not None:
            return self._contents.open_thumbnail(found.thumbnail, found.media, byte_range)
        if found.media.blob is None:
            raise NotFoundError("media not found")
        return self._contents.open(found.media.blob, byte_range)

    async def presign(self, found: FoundMedia, *, lifetime_s: int, content_disposition: str, window_s: int = 1) -> str:
        """Make a URL at which S3 itself serves the media's bytes, the same within each `window_s` seconds.

        Raises NotFoundError when there is no content.
        """
        return await self._contents.presign(
            found.media, lifetime_s=lifetime_s, content_disposition=content_disposition, window_s=window_s
        )

    async def _send_rest(self, mxc: Mxc, options: DownloadOptions, offset: int, sink: Sink) -> None:
        """Send the content from `offset` on to a reader of a tee who fell behind, now that it is stored."""
        found = await self.find(mxc, replace(options, allow_remote=False, wait_ms=0))
        blob = found.media.blob
        if blob is not None and offset < blob.size_bytes:
            async with self._contents.open(blob, ByteRange(offset, blob.size_bytes - offset)) as stored:
                await stored.send_to(sink)
