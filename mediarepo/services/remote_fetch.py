"""One fetch of remote media: stores it, and passes it on to waiting clients meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mediarepo.config.federation import RemoteMediaConfig
from mediarepo.db.remote_media import RemoteTable
from mediarepo.errors import BadRequestError, NotFoundError, TooLargeError, TooSlowError
from mediarepo.federation.multipart import RemoteContent, RemoteContentClient
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.byte_stream import Sink
from mediarepo.model.marks import OPERATOR
from mediarepo.model.media import Media, MediaState, NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.remote_media import FetchError, FetchReason
from mediarepo.model.scans import ContentGate, ScanClass
from mediarepo.model.tasks import Lease
from mediarepo.services.access_policy import DownloadOptions
from mediarepo.services.tee import ANNOUNCING_S, ANNOUNCING_WINDOWS, Rest, Tee, TeeBudget, TeeView
from mediarepo.services.uploads import Uploads

LINGER_S = 5.0
"""How long after its fetch a tee's memory still serves readers, if there are any."""


class RemoteFetch:
    """A fetch under way in a homeserver's name, `asked_by`; `tee` can be read from once it is shown."""

    def __init__(self, mxc: Mxc, asked_by: str) -> None:
        self.mxc = mxc
        self.asked_by = asked_by
        self.tee: Tee | None = None
        self.known_backoff = False
        self._shown = asyncio.Event()
        self._landed = asyncio.Event()
        self._on_landed: list[Callable[[], None]] = []

    def show(self, tee: Tee) -> None:
        """Let those who wait read along, unless the fetch has ended."""
        if self._landed.is_set():
            return
        self.tee = tee
        self._shown.set()

    def hide(self, tee: Tee, scopes: frozenset[str]) -> None:
        """Keep content from those who wait and may not see it, and break off those who read already."""
        if OPERATOR in scopes:
            self.tee = None
            tee.fail(NotFoundError("media not found"))
            tee.drop()
        else:
            tee.hide_from(scopes)

    def on_landed(self, call: Callable[[], None]) -> None:
        """Have something done once nothing of the fetch is in memory any more."""
        self._on_landed.append(call)

    async def shown_before(self, task: "asyncio.Task[None]", viewer: str) -> bool:
        """Wait for something to read from, or for the fetch to end; False when there is nothing for this viewer."""
        shown = asyncio.create_task(self._shown.wait())
        try:
            await asyncio.wait({task, shown}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            shown.cancel()
        return self.tee is not None and self.tee.from_start and viewer not in self.tee.hidden_from

    def seen_by(self, viewer: str, send_stored: Rest) -> TeeView:
        """Let a reader in at the tee; `send_stored` sends what the tee no longer has, once that is stored.

        Raises NotFoundError when there is no content to show.
        """
        if self.tee is None:
            raise NotFoundError("media not found")

        async def rest(offset: int, sink: Sink) -> None:
            await self._landed.wait()
            await send_stored(offset, sink)

        return self.tee.seen_by(viewer, rest)

    def land(self, failure: BaseException | None) -> None:
        """End the fetch: what is in memory lingers for a moment, unless it is not to be had at all."""
        if self.tee is not None and failure is not None:
            self.tee.fail(NotFoundError("the media could not be fetched"))
        self._landed.set()
        loop = asyncio.get_running_loop()
        loop.call_later(ANNOUNCING_S if self.tee is not None else 0, self._linger)

    def _linger(self) -> None:
        """Keep what is in memory for as long as it has readers, but not for long."""
        tee = self.tee
        if tee is None or not tee.readers:
            self._forget()
            return
        tee.on_left = lambda: None if tee.readers else self._forget()
        asyncio.get_running_loop().call_later(LINGER_S, self._forget)

    def _forget(self) -> None:
        if self.tee is not None:
            self.tee.drop()
        calls, self._on_landed = self._on_landed, []
        for call in calls:
            call()


log = structlog.get_logger(__name__)

_WINDOW_BYTES = 1024 * 1024
_FRAME_BYTES = 160 * 1024
"""What may stand around a file in a multipart body, at most."""
_FIRST_S = 30
_UNREACHED = {
    FetchReason.FORBIDDEN_ADDRESS,
    FetchReason.NOT_DISCOVERED,
    FetchReason.UNREACHABLE,
    FetchReason.TLS_FAILED,
    FetchReason.TOO_SLOW,
    FetchReason.SERVER_ERROR,
    FetchReason.RATE_LIMITED,
}
"""Failures of the server as a whole, for which whoever met them leaves it alone for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFetcher:
    """Fetches media and stores them."""

    config: RemoteMediaConfig
    fetcher: RemoteContentClient
    uploads: Uploads
    table: RemoteTable
    tenants: Homeservers
    budget: TeeBudget
    now_ms: Callable[[], int]
    gate: ContentGate | None = None

    async def fetch(self, remote_fetch: RemoteFetch, options: DownloadOptions, lease: Lease, *, again: bool) -> None:
        """Fetch media and store them. Raises FetchError when that fails, or no homeserver has a key to sign with.

        `again` when the content was here before, so that its revision is known only at the end.
        """
        mxc = remote_fetch.mxc
        if options.tenant is None:
            raise FetchError(FetchReason.NO_SIGNING_KEY, "nobody's key to sign with")
        try:
            async with self.fetcher.open(mxc, options.tenant, wait_ms=options.wait_ms) as content:
                if remote_fetch.known_backoff:
                    await self.table.note_reached(mxc.server_name, remote_fetch.asked_by)
                await self._store(remote_fetch, content, lease, again=again)
        except FetchError as exc:
            if exc.reason in _UNREACHED:
                await self._note_unreachable(remote_fetch, exc.reason)
            raise

    async def _note_unreachable(self, remote_fetch: RemoteFetch, reason: FetchReason) -> None:
        config = self.config
        await self.table.note_unreachable(
            remote_fetch.mxc.server_name,
            remote_fetch.asked_by,
            reason,
            first_ms=config.backoff_ms,
            longest_ms=config.max_backoff_ms,
        )

    async def _store(self, remote_fetch: RemoteFetch, content: RemoteContent, lease: Lease, *, again: bool) -> None:
        declared = content.size_bytes if content.at_most_bytes is None else content.at_most_bytes - _FRAME_BYTES
        if (declared or 0) > self.config.max_bytes:
            raise FetchError(FetchReason.TOO_LARGE, f"declares {declared} bytes or more")
        media = NewMedia(
            mxc=remote_fetch.mxc,
            content_type=content.content_type,
            upload_name=content.upload_name,
            uploaded_by=None,
            authenticated=self.tenants.any_frozen,
            remote=True,
            created_ts=self.now_ms(),
            lease=lease,
        )
        tee = None if again else await self._tee(remote_fetch, media, content)
        body = _TeedBody(content, tee, self.config.min_bytes_per_s, least_bytes=_least_bytes(content))
        try:
            await self._store_body(remote_fetch, media, content, body)
        except BaseException:
            if tee is not None:  # at once: nobody is to begin reading what has failed already
                tee.fail(NotFoundError("the media could not be fetched"))
            raise

    async def _store_body(
        self, remote_fetch: RemoteFetch, media: NewMedia, content: RemoteContent, body: "_TeedBody"
    ) -> None:
        try:
            await self.uploads.store(
                media,
                body,
                declared_bytes=content.size_bytes,
                at_most_bytes=content.at_most_bytes,
                on_hashed=lambda sha256: self._hashed(remote_fetch, body, sha256),
            )
        except TooLargeError as exc:
            raise FetchError(FetchReason.TOO_LARGE, f"more than {self.config.max_bytes} bytes") from exc
        except TooSlowError as exc:
            raise FetchError(FetchReason.TOO_SLOW, "the content came too slowly") from exc
        except BadRequestError as exc:
            raise FetchError(FetchReason.BROKEN_OFF, exc.message) from exc

    async def _tee(self, remote_fetch: RemoteFetch, media: NewMedia, content: RemoteContent) -> Tee | None:
        """Make a tee if there is memory for it, shown from its first bytes on unless the content may be a hidden one.

        Then content of up to one part is held back until its hash is known, and of larger content nothing is passed on.
        Nothing at all is, while a scanner is to see content first.
        """
        if self.gate is not None and self.gate.holds_back(ScanClass.REMOTE):
            return None
        at_most, part_bytes = content.at_most_bytes, self.uploads.config.part_bytes
        if at_most is not None and at_most > self.config.max_bytes + _WINDOW_BYTES:
            return None
        held_back = await self._may_be_hidden(content)
        small = at_most is not None and at_most <= part_bytes
        if held_back and not small:
            return None
        if small and at_most is not None:
            reserved = self.budget.take(at_most)
        else:
            reserved = self.budget.take(ANNOUNCING_WINDOWS * _WINDOW_BYTES, _WINDOW_BYTES)
        if reserved is None:
            return None
        remote_fetch.on_landed(reserved.end)
        tee = Tee(
            _media_of(media),
            size_bytes=content.size_bytes,
            window_bytes=None if small else _WINDOW_BYTES,
            reserved=reserved,
        )
        if not held_back:
            tee.on_first_bytes = lambda: remote_fetch.show(tee)
        return tee

    async def _may_be_hidden(self, content: RemoteContent) -> bool:
        return await self.table.may_content_be_hidden(_least_bytes(content), content.at_most_bytes)

    async def _hashed(self, remote_fetch: RemoteFetch, body: "_TeedBody", sha256: bytes) -> None:
        """Let clients have the content, now that its hash is known, unless that is hidden; it is stored in any case."""
        tee = body.tee
        if tee is None:
            return
        if scopes := await self.table.hidden_from(remote_fetch.mxc, sha256, body.size_bytes):
            log.info("remote_content_quarantined", server_name=remote_fetch.mxc.server_name)
            remote_fetch.hide(tee, scopes)
        if OPERATOR in scopes:
            return
        tee.size_bytes = body.size_bytes
        tee.end()
        remote_fetch.show(tee)


class _TeedBody:
    """A body whose bytes are shown to a tee as they are read; one that trickles is given up."""

    def __init__(self, content: RemoteContent, tee: Tee | None, min_bytes_per_s: int, *, least_bytes: int = 0) -> None:
        self.tee = tee
        self._least_bytes = least_bytes
        self._min_bytes_per_s = min_bytes_per_s
        self._began = asyncio.get_running_loop().time()
        self.size_bytes = 0
        self._content = content

    async def read(self) -> bytes:
        piece = await self._content.read()
        self.size_bytes += len(piece)
        if not piece and self.size_bytes < self._least_bytes:
            raise FetchError(FetchReason.NOT_UNDERSTOOD, "too much stands around the file")
        if piece and self.tee is not None:
            self.tee.add(piece)
        seconds = asyncio.get_running_loop().time() - self._began
        if seconds > _FIRST_S and self.size_bytes < seconds * self._min_bytes_per_s:
            raise FetchError(FetchReason.TOO_SLOW, "the content trickles")
        return piece


def _least_bytes(content: RemoteContent) -> int:
    """Say how long content is at least, if what stands around it is no longer than it may be."""
    if content.size_bytes is not None:
        return content.size_bytes
    return max(0, (content.at_most_bytes or 0) - _FRAME_BYTES)


def _media_of(media: NewMedia) -> Media:
    """Say what the row is going to be."""
    return Media(
        mxc=media.mxc,
        state=MediaState.READY,
        remote=True,
        content_type=media.content_type,
        upload_name=media.upload_name,
        created_ts=media.created_ts or 0,
        revision=1,
        authenticated=media.authenticated,
        hidden=False,
        blob=None,
    )
