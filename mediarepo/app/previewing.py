"""What previews web pages, joined by hand."""

from contextlib import AsyncExitStack
from typing import Protocol

from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.app.joining import join_uploads
from mediarepo.db.leases import Leases
from mediarepo.db.previews import PreviewTable
from mediarepo.images.memory import SourceBudget
from mediarepo.images.pool import WorkerPool
from mediarepo.model.media import StoreClass
from mediarepo.outbound.web_client import WebClient
from mediarepo.previews.providers import OEmbedProviders
from mediarepo.previews.request_headers import RequestHeaders
from mediarepo.previews.url_rules import UrlRules
from mediarepo.services.holding import Holding
from mediarepo.services.memory import MemoryBudget
from mediarepo.services.preview_images import PreviewImages
from mediarepo.services.preview_making import PreviewMaking
from mediarepo.services.preview_pages import PreviewPages
from mediarepo.services.preview_reading import PreviewReading
from mediarepo.services.previews import Previews

_LEASE_MS = 10_000


class Workers(Protocol):
    """Who looks at pictures, and with how much memory."""

    @property
    def pool(self) -> WorkerPool:
        """The processes."""
        ...

    @property
    def sources(self) -> SourceBudget:
        """The memory for pictures on their way to them."""
        ...


async def open_previews(
    stack: AsyncExitStack, foundation: Foundation, memory: MemoryBudget, workers: Workers
) -> Previews:
    """Open a client for pages, and build what reads them; its process starts with the first page."""
    settings = foundation.settings
    config = settings.previews
    client = await stack.enter_async_context(WebClient(settings.outbound))
    pages = PreviewPages(
        config=config,
        client=client,
        rules=UrlRules.of(config.url_rules),
        request_headers=RequestHeaders(config),
    )
    limits = settings.uploads.model_copy(update={"max_bytes": config.max_image_bytes})
    images = PreviewImages(
        config=config,
        pages=pages,
        pool=workers.pool,
        sources=workers.sources,
        uploads=join_uploads(foundation, memory, limits, StoreClass.REMOTE),
        now_ms=now_ms,
    )
    making = PreviewMaking(
        config=config,
        pages=pages,
        reading=await stack.enter_async_context(PreviewReading(foundation.sandbox_policy())),
        images=images,
        providers=OEmbedProviders.shipped(),
    )
    holding = Holding(leases=Leases(foundation.database), duration_ms=_LEASE_MS)
    previews = Previews(
        config,
        table=PreviewTable(foundation.database),
        making=making,
        holding=holding,
        isolation=foundation.isolation,
    )
    return await stack.enter_async_context(previews)
