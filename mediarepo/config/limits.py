"""Quotas and rate limits, and the sets of users they apply to."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mediarepo.config.base import Section


class UserSet(Section):
    """Users that fit all that is given; nothing given: everybody."""

    user_ids: list[str] = []
    """User ids, with * and ? standing for characters, as in "@bot-*:example.org"."""
    server_names: list[str] = []
    """Homeservers of ours."""
    appservices: list[str] = []
    """Ids of application services honoured here, for the users they act for."""


def _uri(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("expected an address such as https://example.org/storage")
    return value


class QuotaRule(UserSet):
    """What each user of a set may store; a rule without limits exempts them."""

    max_bytes: int | None = Field(default=None, ge=0)
    """Bytes of all uploads together, deleted ones aside."""
    max_media: int | None = Field(default=None, ge=0)
    """Number of all uploads."""
    max_file_bytes: int | None = Field(default=None, ge=0)
    """Largest upload, in bytes; never more than uploads.max_bytes."""
    max_pending: int | None = Field(default=None, ge=0)
    """Created media ids without content, instead of uploads.max_pending_per_user."""
    period_ms: int = Field(default=24 * 3_600_000, ge=1_000)
    """The time that the next two are about, in ms."""
    max_bytes_per_period: int | None = Field(default=None, ge=0)
    """Bytes uploaded within any such time."""
    max_media_per_period: int | None = Field(default=None, ge=0)
    """Number of uploads within any such time."""


class QuotasConfig(Section):
    """How much users may store."""

    reloadable = frozenset({"rules", "reservation_ms", "info_uri"})

    rules: list[QuotaRule] = []
    """The first rule that fits a user counts; none fits: only uploads.max_bytes does."""
    reservation_ms: int = Field(default=3_600_000, ge=1_000)
    """How long room stays promised to an upload under way, in ms; what a crash leaves behind runs out then."""
    info_uri: Annotated[str, AfterValidator(_uri)] | None = None
    """A page about quotas, told to clients that run into one (M_USER_LIMIT_EXCEEDED); none: M_FORBIDDEN."""


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


class AnonymousRates(Section):
    """What each address may ask for on the legacy paths, which need no token; none: any amount."""

    reloadable = frozenset({"downloads", "download_bytes"})

    downloads: Rate | None = None
    """Downloads and thumbnails, in requests."""
    download_bytes: Rate | None = None
    """Downloads and thumbnails, in bytes really sent."""


class RateLimitsConfig(Section):
    """How often, and how much at once; all processes count together."""

    reloadable = frozenset({"users", "servers", "failing_tokens"})

    users: list[UserRates] = [UserRates()]
    """The first of these that fits a user counts; application services with rate_limited off are exempt."""
    servers: list[ServerRates] = []
    """The first of these that fits another server counts; servers are slowed down rather than refused."""
    anonymous: AnonymousRates = AnonymousRates()
    """For requests without a token; the address is the one that trusted proxies tell."""
    failing_tokens: Rate | None = Rate(per_s=2, burst=100)
    """Unknown access tokens that each client network may try; good ones are not counted. None: any number."""
    share_interval_ms: int = Field(default=1_000, ge=10)
    """How often processes tell each other what they counted, in ms."""
