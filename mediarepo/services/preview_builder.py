"""Builds a preview: the page, its oEmbed response, the first image that can be fetched."""

from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.config.previews import PreviewsConfig
from mediarepo.errors import LimitExceededError, MatrixError
from mediarepo.images.errors import PictureError
from mediarepo.images.formats import DECLARED_TYPES
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from mediarepo.model.ids import new_media_id
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.previews import OEmbed, Page, Picture, Preview, PreviewImage, PreviewUrl
from mediarepo.outbound.web_client import PreviewCookies
from mediarepo.previews.oembed import OEmbedProviders
from mediarepo.previews.page import is_page_type
from mediarepo.services.preview_pages import Fetched, PageError, PreviewFetcher, PreviewParser
from mediarepo.services.uploads import Uploads

_KEPT_LONGER_MS = 24 * 3_600_000
"""Clients show what they were answered for a while after the preview itself is no longer good."""
_SMALLEST_PIXELS = 2
"""What is smaller counts readers, and shows nothing."""


class BytesBody:
    """A body in memory; see `mediarepo.services.upload_parts.Body`."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        """Return all bytes, then nothing."""
        data, self._data = self._data, b""
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewImages:
    """Stores a page's image; any failure is a PageError, and the next image is tried."""

    config: PreviewsConfig
    pages: PreviewFetcher
    pool: WorkerPool
    sources: SourceBudget
    uploads: Uploads
    now_ms: Callable[[], int]

    async def keep(self, picture: Picture, homeserver: HomeserverConfig, cookies: PreviewCookies) -> PreviewImage:
        """Fetch an image and store it as media. Raises PageError when it is no image, or cannot be stored."""
        fetched = await self.pages.image(picture.url, cookies)
        try:
            return await self._store(fetched, homeserver)
        except PictureError as exc:
            raise PageError(f"{picture.url} is no picture: {exc.message}") from exc
        except LimitExceededError:
            raise  # that we are busy says nothing about the page
        except MatrixError as exc:
            raise PageError(f"{picture.url} could not be kept: {exc.message}") from exc

    async def _store(self, fetched: Fetched, homeserver: HomeserverConfig) -> PreviewImage:
        size_bytes = len(fetched.body)
        async with self.sources.reserve(size_bytes) as memory:
            await memory.write(fetched.body)
            measured = await self.pool.measure(memory)
        if min(measured.width, measured.height) < _SMALLEST_PIXELS:
            raise PageError(f"{fetched.url} has only {measured.width} x {measured.height} pixels")
        mxc = Mxc(homeserver.server_name, new_media_id())
        content_type = DECLARED_TYPES[measured.picture_format]
        media = NewMedia(
            mxc=mxc,
            content_type=content_type,
            upload_name=None,
            uploaded_by=None,
            authenticated=homeserver.freeze_legacy,
            preview_expires_ts=self.now_ms() + self.config.ttl_ms + _KEPT_LONGER_MS,
        )
        await self.uploads.store(media, BytesBody(fetched.body), declared_bytes=size_bytes)
        return PreviewImage(
            mxc=str(mxc),
            content_type=content_type,
            size_bytes=size_bytes,
            width=measured.width,
            height=measured.height,
        )


_MAX_REFRESHES = 5


@dataclass(slots=True)
class BuildLog:
    """The steps of a preview, in words, for `mediarepo preview`."""

    told: list[str] = field(default_factory=list)

    def tell(self, words: str) -> None:
        """Add a step."""
        self.told.append(words)


@dataclass(slots=True)
class PreviewSession:
    """The cookies and refreshes of one preview."""

    language: str | None
    steps: BuildLog
    cookies: PreviewCookies = field(default_factory=PreviewCookies)
    _left: int = _MAX_REFRESHES
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def may_go_on(self, url: str, refresh_url: str) -> bool:
        """Return whether a refresh may be followed; the same page again only when it has set a cookie since."""
        if not self._seen:
            self._seen.add((url, 0))
        where = refresh_url, self.cookies.changes
        if self._left == 0 or where in self._seen:
            return False
        self._left -= 1
        self._seen.add(where)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewBuilder:
    """Makes previews, without a cache."""

    config: PreviewsConfig
    pages: PreviewFetcher
    reading: PreviewParser
    images: PreviewImages
    providers: OEmbedProviders

    async def make(
        self, url: PreviewUrl, homeserver: HomeserverConfig, *, language: str | None, steps: BuildLog
    ) -> Preview:
        """Make a preview. Raises PageError when there is nothing to show."""
        visit = PreviewSession(language, steps)
        preview = await self._text(url, visit)
        for picture in preview.pictures[: self.config.max_images]:
            try:
                image = await self.images.keep(picture, homeserver, visit.cookies)
            except PageError as exc:
                steps.tell(f"image passed over: {exc}")
                continue
            steps.tell(f"image from {picture.url} ({picture.rule})")
            return preview.with_image(picture, image)
        return preview

    async def _text(self, url: PreviewUrl, visit: PreviewSession) -> Preview:
        known = await self._known_embed(url, visit)
        try:
            fetched = await self.pages.page(url.text, visit.language, visit.cookies)
        except PageError as exc:
            if known is None:
                raise
            visit.steps.tell(f"page passed over: {exc}")
            return await self.reading.make(Page(url=url.text), known, self.config.limits)
        visit.steps.tell(f"page from {fetched.url} ({fetched.content_type}, {len(fetched.body)} bytes)")
        return await self._of(fetched, known, visit)

    async def _of(self, fetched: Fetched, oembed: OEmbed | None, visit: PreviewSession) -> Preview:
        page = None
        if is_page_type(fetched.content_type):
            page = await self.reading.read_page(
                fetched.body,
                url=fetched.url,
                content_type=fetched.content_type,
                max_bytes=self.config.max_page_bytes,
            )
        if page is None:
            name = _file_name(fetched.content_disposition)
            return await self.reading.make_of_file(fetched.url, fetched.content_type, name, self.config.limits)
        if oembed is None and page.oembed_urls and self.config.oembed:
            oembed = await self._embed(page.oembed_urls[0], visit)
        preview = await self.reading.make(page, oembed, self.config.limits)
        refresh_url = fetched.refresh_url or page.refresh_url
        if refresh_url is not None and page.first("og:title") is None and visit.may_go_on(fetched.url, refresh_url):
            return await self._refreshed(refresh_url, preview, visit)
        return preview

    async def _refreshed(self, url: str, otherwise: Preview, visit: PreviewSession) -> Preview:
        """Follow a page that only sends its readers on."""
        try:
            fetched = await self.pages.page(url, visit.language, visit.cookies)
        except PageError as exc:
            visit.steps.tell(f"refresh passed over: {exc}")
            return otherwise
        visit.steps.tell(f"page from {fetched.url} (refresh)")
        return await self._of(fetched, None, visit)

    async def _known_embed(self, url: PreviewUrl, visit: PreviewSession) -> OEmbed | None:
        request_url = self.providers.request_url(url, language=None) if self.config.oembed else None
        return None if request_url is None else await self._embed(request_url, visit)

    async def _embed(self, url: str, visit: PreviewSession) -> OEmbed | None:
        try:
            fetched = await self.pages.oembed(url, visit.language, visit.cookies)
            found = await self.reading.read_oembed(fetched.body, url=fetched.url, content_type=fetched.content_type)
        except PageError as exc:
            visit.steps.tell(f"oEmbed passed over: {exc}")
            return None
        said = "" if found is not None else " says nothing"
        visit.steps.tell(f"oEmbed from {fetched.url}{said}")
        return found


def _file_name(content_disposition: str | None) -> str | None:
    """Read a file's name (RFC 6266)."""
    if content_disposition is None or len(content_disposition) > 4096:  # noqa: PLR2004 - no header needs more
        return None
    message = Message()
    message["Content-Disposition"] = content_disposition
    return message.get_filename()
