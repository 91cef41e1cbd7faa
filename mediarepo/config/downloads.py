"""Downloads: limits, and who sends the bytes."""

import ipaddress
from typing import Literal

from pydantic import Field, field_validator

from mediarepo.config.base import Section


class RedirectsConfig(Section):
    """Redirects of clients to the S3 server."""

    reloadable = frozenset({"enabled", "min_bytes", "lifetime_ms", "classes", "networks"})

    enabled: bool = False
    """Redirect clients to the S3 server: on the authenticated paths, elsewhere if they ask with allow_redirect=true."""
    min_bytes: int = Field(default=65_536, ge=0)
    """Smallest file for which it is worth a second request, in bytes."""
    lifetime_ms: int = Field(default=600_000, ge=10_000, le=7 * 24 * 3_600_000)
    """How long an address stays good, in ms, and how long quarantined media can still be read by it."""
    classes: list[Literal["local", "remote"]] = ["local", "remote"]
    """Which media: those of the homeservers here, and those of others."""
    networks: list[str] = []
    """Clients' networks that can reach the S3 server; none: all clients can."""

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            ipaddress.ip_network(text)
        return value


class DownloadsConfig(Section):
    """Limits of downloads."""

    reloadable = frozenset({"max_age_s", "idle_timeout_ms", "max_wait_ms", "accel_redirect"})

    max_age_s: int = Field(default=86_400, ge=0)
    """How long clients may cache media without revalidation (Cache-Control: max-age), in seconds."""
    idle_timeout_ms: int = Field(default=60_000, ge=100)
    """A client that takes no byte for this long is disconnected, in ms."""
    max_wait_ms: int = Field(default=60_000, ge=0)
    """How long ?timeout_ms= may make a request wait for pending media, in ms."""
    max_waiting: int = Field(default=1_000, ge=1)
    """How many requests may wait for pending media; further ones are refused with 429."""
    max_cached_rows: int = Field(default=8_192, ge=0)
    """How many rows each process keeps for the moments in which nothing changes, about 1 KiB each; 0: none."""
    redirects: RedirectsConfig = RedirectsConfig()
    """Redirects of clients to the S3 server."""
    accel_redirect: str | None = Field(default=None, pattern=r"^(/[A-Za-z0-9_.-]+)+$")
    """Let nginx fetch and send the bodies of downloads: the path of its internal location; none: mediarepo sends."""
