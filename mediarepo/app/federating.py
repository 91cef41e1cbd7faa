"""What speaks with other servers, joined by hand."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.config.settings import Settings
from mediarepo.federation.contents import Fetcher, RemoteContent
from mediarepo.model.fetching import FetchError, FetchReason
from mediarepo.model.mxc import Mxc


class _Unable:
    """Fetches nothing."""

    def open(
        self, mxc: Mxc, homeserver: HomeserverConfig, *, wait_ms: int
    ) -> AbstractAsyncContextManager[RemoteContent]:
        raise FetchError(FetchReason.NO_SIGNING_KEY, f"{homeserver.server_name} has no signing key ({mxc}, {wait_ms})")


@asynccontextmanager
async def open_fetcher(_settings: Settings) -> AsyncIterator[Fetcher]:
    """Open what fetches media from other servers."""
    yield _Unable()
