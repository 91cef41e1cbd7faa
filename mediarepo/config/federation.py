"""Federation: signing keys, remote media, and connections to other servers."""

import ipaddress

from pydantic import Field, field_validator

from mediarepo.config.base import Section


class FederationConfig(Section):
    """Which servers are served, and how."""

    reloadable = frozenset(
        {"allow_server_names", "deny_server_names", "outage_wait_ms", "redirect_downloads", "redirect_lifetime_ms"}
    )

    allow_server_names: list[str] = []
    """Servers that are allowed, with the wildcard *; none: all that are not denied."""
    deny_server_names: list[str] = []
    """Servers that are denied, as in "*.spam.example"."""
    outage_wait_ms: int = Field(default=10_000, ge=0, le=30_000)
    """How long to wait during an outage, in ms, before answering 404: a 5xx would make servers back off."""
    redirect_downloads: bool = False
    """Redirect other servers to the S3 server for downloads; servers without support for redirects fail then."""
    redirect_lifetime_ms: int = Field(default=60_000, ge=5_000, le=3_600_000)
    """How long such a URL is valid, in ms."""


MIB = 1024 * 1024


class RemoteMediaConfig(Section):
    """Limits of media fetched from other servers."""

    reloadable = frozenset(
        {
            "max_bytes",
            "deny_server_names",
            "connect_timeout_ms",
            "answer_timeout_ms",
            "idle_timeout_ms",
            "total_timeout_ms",
            "min_bytes_per_s",
            "remember_not_found_ms",
            "remember_failure_ms",
            "backoff_ms",
            "max_backoff_ms",
        }
    )

    max_bytes: int = Field(default=100 * MIB, ge=0)
    """Largest media of another server that is fetched, in bytes."""
    deny_server_names: list[str] = []
    """Servers whose media are never served, stored or not; with the wildcard *, as in "*.spam.example"."""
    connect_timeout_ms: int = Field(default=10_000, ge=100)
    """How long opening a connection to another server may take, in ms."""
    answer_timeout_ms: int = Field(default=20_000, ge=100)
    """How long it may take to start its response, in ms, in addition to its wait for pending media."""
    idle_timeout_ms: int = Field(default=30_000, ge=100)
    """How long it may pause within its response, in ms."""
    total_timeout_ms: int = Field(default=600_000, ge=1_000)
    """How long one fetch may take as a whole, in ms."""
    min_bytes_per_s: int = Field(default=1024, ge=0)
    """Minimum average speed of a fetch after its first half minute, in bytes per second."""
    max_fetches: int = Field(default=100, ge=1)
    """Maximum number of parallel fetches of each process; further ones wait."""
    max_fetches_per_server: int = Field(default=8, ge=1)
    """Maximum number of parallel fetches from one server, of each process."""
    max_waiting: int = Field(default=1_000, ge=1)
    """How many requests may wait for fetches before further ones are refused with 429."""
    tee_memory_bytes: int = Field(default=64 * MIB, ge=0)
    """Memory for sending bytes to clients while they are being stored, in bytes; 0: send only what is stored."""
    lease_ms: int = Field(default=10_000, ge=300)
    """How long after a crash during a fetch another process takes over, in ms."""
    remember_not_found_ms: int = Field(default=60_000, ge=0)
    """How long another server's "not found" is cached, in ms."""
    remember_failure_ms: int = Field(default=5_000, ge=0)
    """How long any other failure to fetch media is cached, in ms."""
    backoff_ms: int = Field(default=15_000, ge=0)
    """Back-off after a server could not be reached twice in a row, in ms; doubled after each further failure."""
    max_backoff_ms: int = Field(default=3_600_000, ge=0)
    """Maximum back-off, in ms."""


class OutboundConfig(Section):
    """Rules for every connection to other people's servers."""

    reloadable = frozenset({"allow_networks", "deny_networks", "max_redirects"})

    allow_networks: list[str] = []
    """Networks to which connections are allowed although they are not public, as in "10.1.0.0/16"."""
    deny_networks: list[str] = []
    """Networks to which connections are denied, even if allowed above."""
    ca_file: str | None = None
    """A file of certificates to trust instead of the system's, in PEM."""
    resolve_timeout_ms: int = Field(default=10_000, ge=100)
    """How long a DNS lookup may take, in ms."""
    max_redirects: int = Field(default=5, ge=0, le=20)
    """How many redirects of other servers are followed; for web pages it is 20, as in browsers."""
    max_connections: int = Field(default=200, ge=1)
    """Maximum number of connections of each process."""

    @field_validator("allow_networks", "deny_networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            ipaddress.ip_network(text)
        return value
