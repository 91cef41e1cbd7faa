"""How often, and how much at once."""

from pydantic import Field

from mediarepo.config.base import Section
from mediarepo.config.users import UserSet


class Rate(Section):
    """A leaky bucket: so much at once, and so much a second in the long run."""

    per_s: float = Field(gt=0)
    """What may go on for ever, a second."""
    burst: float = Field(ge=1)
    """What may come at once."""


class UserRates(UserSet):
    """What each user of a set may ask for; none: any amount."""

    downloads: Rate | None = None
    """Downloads and thumbnails, in requests."""
    download_bytes: Rate | None = None
    """Downloads and thumbnails, in bytes really sent."""
    uploads: Rate | None = None
    """Uploads, in requests."""
    upload_bytes: Rate | None = None
    """Uploads, in bytes really received."""
    creates: Rate | None = Rate(per_s=10, burst=50)
    """Media ids created for content that is to follow."""
    previews: Rate | None = Rate(per_s=5, burst=50)
    """Previews of web pages, kept ones too."""


class ServerRates(Section):
    """What each server of a set may ask for; none: any amount."""

    server_names: list[str] = []
    """Other servers, with * and ? standing for characters; none given: every server."""
    downloads: Rate | None = None
    """Downloads and thumbnails, in requests."""
    download_bytes: Rate | None = None
    """Downloads and thumbnails, in bytes really sent."""


class StrangerRates(Section):
    """What each address may ask for on the legacy paths, which need no token; none: any amount."""

    downloads: Rate | None = None
    """Downloads and thumbnails, in requests."""
    download_bytes: Rate | None = None
    """Downloads and thumbnails, in bytes really sent."""


class RateLimitsConfig(Section):
    """How often, and how much at once; all processes count together."""

    users: list[UserRates] = [UserRates()]
    """The first of these that fits a user counts; application services with rate_limited off are exempt."""
    servers: list[ServerRates] = []
    """The first of these that fits another server counts; servers are slowed down rather than refused."""
    strangers: StrangerRates = StrangerRates()
    """For requests without a token; the address is the one that trusted proxies tell."""
    failing_tokens: Rate | None = Rate(per_s=2, burst=100)
    """Unknown access tokens that each client network may try; good ones are not counted. None: any number."""
    share_interval_ms: int = Field(default=1_000, ge=10)
    """How often processes tell each other what they counted, in ms."""
