"""What speaks with other servers, joined by hand."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mediarepo.app.foundation import elapsed_ms
from mediarepo.config.settings import Settings
from mediarepo.federation.client import FederationClient
from mediarepo.federation.discovery import Discovery
from mediarepo.federation.key_files import read_keys
from mediarepo.federation.media_client import MediaClient
from mediarepo.federation.signing import SigningKey
from mediarepo.federation.srv import SrvLookup, lookup_srv
from mediarepo.federation.well_known import Delegation, WellKnown
from mediarepo.model.single_flight import SingleFlight
from mediarepo.outbound.client import Outbound


@dataclass(frozen=True, slots=True, kw_only=True)
class Federating:
    """All that speaks with other servers."""

    client: FederationClient
    media: MediaClient
    keys: Mapping[str, SigningKey]


@asynccontextmanager
async def open_federating(settings: Settings, *, lookup: SrvLookup = lookup_srv) -> AsyncIterator[Federating]:
    """Read our keys, and open the door to other servers."""
    async with AsyncExitStack() as stack:
        keys = read_signing_keys(settings)
        outbound = await stack.enter_async_context(Outbound(settings.outbound))
        flights = await stack.enter_async_context(SingleFlight[Delegation]())
        well_known = WellKnown(outbound, flights, clock_s=_clock_s)
        discovery = Discovery(well_known, clock_s=_clock_s, lookup=lookup)
        client = FederationClient(discovery=discovery, outbound=outbound)
        media = MediaClient(config=settings.remote_media, client=client, outbound=outbound, keys=keys)
        yield Federating(client=client, media=media, keys=keys)


def read_signing_keys(settings: Settings) -> dict[str, SigningKey]:
    """Read the key of each homeserver that has one; of several in a file the first signs."""
    return {
        homeserver.server_name: read_keys(Path(homeserver.signing_key_file))[0]
        for homeserver in settings.homeservers
        if homeserver.signing_key_file is not None
    }


def _clock_s() -> float:
    return elapsed_ms() / 1000
