"""Builds what talks to other servers: federation and URL previews."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from mediarepo.app.build_services import build_uploads
from mediarepo.app.foundation import Foundation, elapsed_ms, now_ms
from mediarepo.app.signing_keys import read_signing_keys
from mediarepo.db.previews import PreviewTable
from mediarepo.db.remote_media import ServerKeyTable
from mediarepo.federation.client import FederationClient
from mediarepo.federation.discovery import Delegation, Discovery, WellKnown
from mediarepo.federation.media_client import MediaClient
from mediarepo.federation.server_keys import ServerKeys
from mediarepo.federation.signing import SigningKey
from mediarepo.federation.srv import SrvLookup, lookup_srv
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.media import StoreClass
from mediarepo.model.remote_media import KeysOfServer
from mediarepo.outbound.client import Outbound
from mediarepo.outbound.web_client import WebClient
from mediarepo.previews.oembed import OEmbedProviders
from mediarepo.previews.page import RequestHeaders
from mediarepo.previews.url_policy import UrlRules
from mediarepo.services.preview_builder import PreviewBuilder, PreviewImages
from mediarepo.services.preview_pages import PreviewFetcher, PreviewParser
from mediarepo.services.previews import Previews
from mediarepo.services.upload_parts import MemoryBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationParts:
    """Services that talk to other servers."""

    client: FederationClient
    media: MediaClient
    keys: dict[str, SigningKey]
    known_keys: dict[str, dict[str, bytes]]
    server_keys: ServerKeys

    def replace_keys(self, own_keys: Mapping[str, Sequence[SigningKey]]) -> None:
        """Replace the signing keys, for requests from now on and for verifying our own signatures."""
        _fill(self.keys, self.known_keys, own_keys)


@asynccontextmanager
async def open_federation(foundation: Foundation, *, lookup: SrvLookup = lookup_srv) -> AsyncIterator[FederationParts]:
    """Read the signing keys, and open the outbound client for other servers."""
    settings = foundation.settings
    async with AsyncExitStack() as stack:
        keys, known_keys = dict[str, SigningKey](), dict[str, dict[str, bytes]]()
        _fill(keys, known_keys, read_signing_keys(settings))
        outbound = await stack.enter_async_context(Outbound(settings.outbound))
        remote_fetches = await stack.enter_async_context(SingleFlight[Delegation]())
        well_known = WellKnown(outbound, remote_fetches, clock_s=_clock_s)
        discovery = Discovery(well_known, clock_s=_clock_s, lookup=lookup)
        client = FederationClient(discovery=discovery, outbound=outbound)
        media = MediaClient(config=settings.remote_media, client=client, outbound=outbound, keys=keys)
        server_keys = ServerKeys(
            client,
            ServerKeyTable(foundation.database),
            await stack.enter_async_context(SingleFlight[KeysOfServer]()),
            known=known_keys,
            now_ms=now_ms,
        )
        yield FederationParts(client=client, media=media, keys=keys, known_keys=known_keys, server_keys=server_keys)


def _fill(
    keys: dict[str, SigningKey], known_keys: dict[str, dict[str, bytes]], own_keys: Mapping[str, Sequence[SigningKey]]
) -> None:
    keys.clear()
    known_keys.clear()
    for server_name, of_server in own_keys.items():
        keys[server_name] = of_server[0]
        known_keys[server_name] = {key.key_id: key.public_key for key in of_server}


def _clock_s() -> float:
    return elapsed_ms() / 1000


_LEASE_MS = 10_000


class Workers(Protocol):
    """Image workers, and the memory budget for their sources."""

    @property
    def pool(self) -> WorkerPool:
        """The worker processes."""
        ...

    @property
    def sources(self) -> SourceBudget:
        """The memory budget for source images."""
        ...


async def open_previews(
    stack: AsyncExitStack, foundation: Foundation, memory: MemoryBudget, workers: Workers
) -> Previews:
    """Open the client for web pages, and build the preview services; workers start with the first page."""
    settings = foundation.settings
    config = settings.previews
    client = await stack.enter_async_context(WebClient(settings.outbound))
    pages = PreviewFetcher(
        config=config,
        client=client,
        rules=UrlRules(config.url_rules),
        request_headers=RequestHeaders(config),
    )
    images = PreviewImages(
        config=config,
        pages=pages,
        pool=workers.pool,
        sources=workers.sources,
        uploads=build_uploads(foundation, memory, StoreClass.REMOTE, max_bytes=lambda: config.max_image_bytes),
        now_ms=now_ms,
    )
    making = PreviewBuilder(
        config=config,
        pages=pages,
        reading=await stack.enter_async_context(PreviewParser(foundation.sandbox_policy())),
        images=images,
        providers=OEmbedProviders.shipped(),
    )
    lease_holder = foundation.lease_holder(_LEASE_MS)
    previews = Previews(
        config,
        table=PreviewTable(foundation.database),
        making=making,
        lease_holder=lease_holder,
        isolation=foundation.isolation,
    )
    return await stack.enter_async_context(previews)
