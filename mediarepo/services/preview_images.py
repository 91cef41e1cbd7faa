"""Images of previews: fetched, looked at, and kept as media that go by themselves."""

from collections.abc import Callable
from dataclasses import dataclass

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.config.previews import PreviewsConfig
from mediarepo.errors import LimitExceededError, MatrixError
from mediarepo.images.errors import PictureError
from mediarepo.images.formats import DECLARED_TYPES
from mediarepo.images.source_memory import SourceBudget
from mediarepo.images.worker_pool import WorkerPool
from mediarepo.model.ids import new_media_id
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.previews import Picture, PreviewImage
from mediarepo.outbound.web_client import CookieJar
from mediarepo.services.preview_pages import Fetched, PageError, PreviewPages
from mediarepo.services.uploads import Uploads

_KEPT_LONGER_MS = 24 * 3_600_000
"""Clients show what they were answered for a while after the preview itself is no longer good."""
_SMALLEST_PIXELS = 2
"""What is smaller counts readers, and shows nothing."""


class Given:
    """A body that is there already; see `mediarepo.services.bodies.Body`."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        """Give it all at once."""
        data, self._data = self._data, b""
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewImages:
    """Brings a page's picture in; any failure is a PageError, and the next picture's chance."""

    config: PreviewsConfig
    pages: PreviewPages
    pool: WorkerPool
    sources: SourceBudget
    uploads: Uploads
    now_ms: Callable[[], int]

    async def keep(self, picture: Picture, homeserver: HomeserverConfig, cookies: CookieJar) -> PreviewImage:
        """Fetch a picture and make media of it."""
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
        await self.uploads.store(media, Given(fetched.body), declared_bytes=size_bytes)
        return PreviewImage(
            mxc=str(mxc),
            content_type=content_type,
            size_bytes=size_bytes,
            width=measured.width,
            height=measured.height,
        )
