"""Quotas and rate limits, and the sets of users they apply to."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mediarepo.config.base import Section


class UserSet(Section):
    """Users that match all given conditions; without conditions, everybody."""

    user_ids: list[str] = []
    """User ids, with the wildcards * and ?, as in "@bot-*:example.org"."""
    server_names: list[str] = []
    """Homeservers served here."""
    appservices: list[str] = []
    """Ids of application services configured here, for the users they act for."""


def _uri(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("expected an address such as https://example.org/storage")
    return value


class QuotaRule(UserSet):
    """The quota of each user of a set; a rule without limits exempts them."""

    max_bytes: int | None = Field(default=None, ge=0)
    """Total bytes of all uploads, except deleted ones."""
    max_media: int | None = Field(default=None, ge=0)
    """Number of all uploads."""
    max_file_bytes: int | None = Field(default=None, ge=0)
    """Largest upload, in bytes; never more than uploads.max_bytes."""
    max_pending: int | None = Field(default=None, ge=0)
    """Pending media, instead of uploads.max_pending_per_user."""
    period_ms: int = Field(default=24 * 3_600_000, ge=1_000)
    """The period of the next two limits, in ms."""
    max_bytes_per_period: int | None = Field(default=None, ge=0)
    """Bytes uploaded within any such period."""
    max_media_per_period: int | None = Field(default=None, ge=0)
    """Number of uploads within any such period."""


class QuotasConfig(Section):
    """Users' quotas."""

    reloadable = frozenset({"rules", "reservation_ms", "info_uri"})

    rules: list[QuotaRule] = []
    """The first rule that matches a user applies; none matches: only uploads.max_bytes applies."""
    reservation_ms: int = Field(default=3_600_000, ge=1_000)
    """How long quota stays reserved for a running upload, in ms; after a crash it is released then."""
    info_uri: Annotated[str, AfterValidator(_uri)] | None = None
    """URL of a page about quotas for clients that exceed one (M_USER_LIMIT_EXCEEDED); none: M_FORBIDDEN."""


class Rate(Section):
    """A leaky bucket: so much at once, and so much a second in the long run."""

    per_s: float = Field(gt=0)
    """Sustained rate per second."""
    burst: float = Field(ge=1)
    """Maximum burst."""


class UserRates(UserSet):
    """Rate limits of each user of a set; none: unlimited."""

    downloads: Rate | None = None
    """Downloads and thumbnails, in requests."""
    download_bytes: Rate | None = None
    """Downloads and thumbnails, in bytes that were really sent."""
    uploads: Rate | None = None
    """Uploads, in requests."""
    upload_bytes: Rate | None = None
    """Uploads, in bytes that were really received."""
    creates: Rate | None = Rate(per_s=10, burst=50)
    """Creation of media ids (pending media)."""
    previews: Rate | None = Rate(per_s=5, burst=50)
    """Previews of web pages, including cached ones."""


class ServerRates(Section):
    """Rate limits of each server of a set; none: unlimited."""

    server_names: list[str] = []
    """Other servers, with the wildcards * and ?; none given: every server."""
    downloads: Rate | None = None
    """Downloads and thumbnails, in requests."""
    download_bytes: Rate | None = None
    """Downloads and thumbnails, in bytes that were really sent."""


class AnonymousRates(Section):
    """Rate limits of each address on the legacy paths, which need no token; none: unlimited."""

    reloadable = frozenset({"downloads", "download_bytes"})

    downloads: Rate | None = None
    """Downloads and thumbnails, in requests."""
    download_bytes: Rate | None = None
    """Downloads and thumbnails, in bytes that were really sent."""


class RateLimitsConfig(Section):
    """Rate limits of requests and bytes, counted over all processes."""

    reloadable = frozenset({"users", "servers", "failing_tokens"})

    users: list[UserRates] = [UserRates()]
    """The first entry that matches a user applies; application services with rate_limited off are exempt."""
    servers: list[ServerRates] = []
    """The first entry that matches another server applies; servers are slowed down rather than refused."""
    anonymous: AnonymousRates = AnonymousRates()
    """For requests without a token; the address is the one that trusted proxies report."""
    failing_tokens: Rate | None = Rate(per_s=2, burst=100)
    """Unknown access tokens that each client network may try; valid ones are not counted. None: any number."""
    share_interval_ms: int = Field(default=1_000, ge=10)
    """How often processes share their counts, in ms."""
