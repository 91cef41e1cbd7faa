"""URL previews: which pages, how large, and for how long."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from mediarepo.config.base import Section
from mediarepo.model.previews import PreviewLimits

KIB = 1024
MIB = 1024 * KIB
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1000}")
_OUR_HEADERS = frozenset(
    {"host", "content-length", "content-type", "connection", "transfer-encoding", "te", "upgrade", "expect", "range"}
)


def _pattern(value: str) -> str:
    """Accept a glob, or a regular expression that begins with ^."""
    if not value or len(value) > KIB:
        raise ValueError("expected a pattern of 1 to 1024 characters")
    if value.startswith("^"):
        try:
            re.compile(value)
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
    return value


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("expected printable ASCII of at most 1000 characters")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]


class UrlRule(Section):
    """URLs that match all given patterns; patterns have * and ?, or are regular expressions when they begin with ^."""

    scheme: Literal["http", "https"] | None = None
    """http or https."""
    host: Pattern | None = None
    """Host name or address, as in "*.example.org", which does not match example.org itself."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """Port, also for the default one."""
    path: Pattern | None = None
    """Path without the query, as in "/private/*"."""
    url: Pattern | None = None
    """The whole URL."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if all(value is None for value in (self.scheme, self.host, self.port, self.path, self.url)):
            raise ValueError("give scheme, host, port, path or url; otherwise the rule fits everything")
        return self


class UrlRulesConfig(Section):
    """Which URLs are requested: for pages, redirects, oEmbed responses and images alike."""

    reloadable = frozenset({"deny", "allow"})

    deny: list[UrlRule] = []
    """URLs that match one of these are never requested."""
    allow: list[UrlRule] = []
    """If there is any, only URLs that match one of these are requested."""


class DomainConfig(Section):
    """How some hosts are asked; the first that fits counts."""

    host: Pattern
    """Host name, with * and ?, or a regular expression that begins with ^."""
    user_agent: HeaderValue | None = None
    """User-Agent for these hosts; some sites show their Open Graph data to certain robots only."""
    accept_language: HeaderValue | None = None
    """Accept-Language for these hosts."""
    headers: dict[str, HeaderValue] = {}
    """Further headers for these hosts."""

    @field_validator("headers")
    @classmethod
    def _may_be_chosen(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OUR_HEADERS:
                raise ValueError(f"{name!r} is no header that can be chosen")
        return value


class PreviewsConfig(Section):
    """Previews of web pages."""

    reloadable = frozenset(
        {
            "max_page_bytes",
            "max_image_bytes",
            "max_images",
            "timeout_ms",
            "user_agent",
            "accept_language",
            "domains",
            "oembed",
            "max_title_chars",
            "max_description_chars",
            "ttl_ms",
            "failure_ttl_ms",
            "budget_bytes",
        }
    )

    url_rules: UrlRulesConfig = UrlRulesConfig()
    """Which URLs are previewed; addresses that are not public (see outbound) never are."""
    max_page_bytes: int = Field(default=2 * MIB, ge=16 * KIB, le=16 * MIB)
    """How much of a page is read, in bytes; the rest is ignored."""
    max_image_bytes: int = Field(default=10 * MIB, ge=1)
    """Largest image that is fetched for a preview, in bytes."""
    max_images: int = Field(default=5, ge=0, le=20)
    """How many images of a page are tried until one can be shown; 0: previews have no image."""
    timeout_ms: int = Field(default=15_000, ge=100)
    """How long one preview may take in total, in ms."""
    user_agent: HeaderValue = "Mozilla/5.0 (compatible; mediarepo; link preview bot)"
    """User-Agent of requests for pages."""
    accept_language: HeaderValue = "en, *;q=0.5"
    """Accept-Language of requests for pages."""
    domains: list[DomainConfig] = []
    """Hosts with other request headers."""
    oembed: bool = True
    """Whether known oEmbed providers are used, and those that pages name."""
    max_title_chars: int = Field(default=200, ge=20, le=2_000)
    """Longest title, in characters; longer ones are cut at a word."""
    max_description_chars: int = Field(default=500, ge=20, le=10_000)
    """Longest description, in characters; longer ones are cut at a word."""
    ttl_ms: int = Field(default=3_600_000, ge=0)
    """How long a preview is cached, in ms."""
    failure_ttl_ms: int = Field(default=300_000, ge=0)
    """How long it is cached that a page could not be previewed, or had no content, in ms."""
    budget_bytes: int = Field(default=1024 * MIB, ge=0)
    """Storage for the images of all previews together, in bytes; the oldest are deleted first."""

    @property
    def limits(self) -> PreviewLimits:
        """The limits of a preview's texts and images."""
        return PreviewLimits(
            max_title_chars=self.max_title_chars,
            max_description_chars=self.max_description_chars,
            max_images=self.max_images,
        )
