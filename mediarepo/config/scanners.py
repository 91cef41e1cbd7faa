"""Content scanners: clamd, ICAP servers and HTTP services."""

from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from mediarepo.config.base import Secret, Section
from mediarepo.model.scans import ScanClass

MIB = 1024 * 1024
DAY_MS = 24 * 3_600_000


class ScannerKind(StrEnum):
    """The protocol that a scanner speaks."""

    CLAMD = "clamd"
    ICAP = "icap"
    HTTP = "http"


class ScanTime(StrEnum):
    """When content is scanned."""

    HOLD = "hold"
    BLOCK = "block"
    AFTERWARDS = "afterwards"


class WhenDown(StrEnum):
    """What happens to new media while a scanner gives no verdict."""

    OPEN = "open"
    CLOSED = "closed"
    HOLD = "hold"


class WhenUnscannable(StrEnum):
    """What happens to content that a scanner cannot scan."""

    OPEN = "open"
    CLOSED = "closed"


_SCHEMES = {
    ScannerKind.CLAMD: {"tcp", "unix"},
    ScannerKind.ICAP: {"icap"},
    ScannerKind.HTTP: {"http", "https", "unix"},
}
_EXAMPLES = {
    ScannerKind.CLAMD: "unix:/run/clamav/clamd.ctl or tcp://clamd.example:3310",
    ScannerKind.ICAP: "icap://icap.example:1344/virus_scan",
    ScannerKind.HTTP: "https://scanner.example/scan or unix:/run/scanner.sock",
}


class WhenDownConfig(Section):
    """What happens while a scanner is down, by class: open (let through), closed (refuse) or hold (hide until then)."""

    reloadable = frozenset({"local", "remote", "previews"})

    local: WhenDown = WhenDown.HOLD
    """Media that users here upload."""
    remote: WhenDown = WhenDown.HOLD
    """Media of other servers."""
    previews: WhenDown = WhenDown.CLOSED
    """Images of URL previews."""


class ScannerConfig(Section):
    """A scanner, and what it is asked about."""

    reloadable = frozenset(
        {
            "when",
            "when_unscannable",
            "classes",
            "max_bytes",
            "content_types",
            "except_content_types",
            "connect_timeout_ms",
            "timeout_ms",
            "queue_limit",
            "rescan",
            "rescan_interval_ms",
            "rescan_bytes_per_s",
        }
    )

    kind: ScannerKind
    """Its protocol: clamd, icap or http."""
    address: str
    """Its address: tcp://HOST:PORT or unix:PATH (clamd), icap://HOST:PORT/SERVICE, a URL or unix:PATH (http)."""
    token: Secret | None = None
    """What is sent to it as `Authorization: Bearer …` (http)."""
    when: ScanTime = ScanTime.HOLD
    """When: hold (hidden until it is clean), block (before the answer) or afterwards (hidden when it is infected)."""
    when_down: WhenDownConfig = WhenDownConfig()
    """What happens while it is down, or has too much to do."""
    when_unscannable: WhenUnscannable = WhenUnscannable.OPEN
    """What happens to content that it cannot scan, being too large for instance: open or closed."""
    classes: list[ScanClass] = Field(default_factory=lambda: list(ScanClass), min_length=1)
    """What it scans: local, remote, previews, imports (always afterwards)."""
    max_bytes: int = Field(default=100 * MIB, ge=1)
    """Larger content is not sent to it, and counts as unscannable."""
    content_types: list[str] = Field(default=["*"], min_length=1)
    """Only content of these types is scanned, with the wildcard *; clients can declare any type."""
    except_content_types: list[str] = []
    """Content of these types is not scanned, with the wildcard *."""
    connect_timeout_ms: int = Field(default=5_000, ge=10, le=60_000)
    """How long opening a connection may take, in ms."""
    timeout_ms: int = Field(default=120_000, ge=100, le=3_600_000)
    """How long one scan may take, in ms."""
    concurrency: int = Field(default=4, ge=1, le=256)
    """How many contents each process has scanned at once before answers, and as many again in the background."""
    max_waiting: int = Field(default=100, ge=1)
    """How many uploads may wait for a place; beyond that, it counts as down."""
    queue_limit: int = Field(default=10_000, ge=1)
    """How many contents may wait for it in the database; beyond that, it counts as down."""
    check_interval_ms: int = Field(default=10_000, ge=100)
    """How often it is asked whether it is there, and for its signatures' version, in ms."""
    rescan: bool = True
    """Whether stored content is scanned again when its signatures have changed, and what imports brought."""
    rescan_interval_ms: int = Field(default=7 * DAY_MS, ge=0)
    """How long at least from the beginning of one such round to the next, in ms."""
    rescan_bytes_per_s: int = Field(default=10 * MIB, ge=1)
    """How fast stored content is scanned in the background, in bytes per second."""

    @model_validator(mode="after")
    def _address_fits(self) -> Self:
        parts = urlsplit(self.address)
        has_place = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname)
        try:
            needs_port = parts.scheme == "tcp" and parts.port is None
        except ValueError:
            needs_port = True
        if parts.scheme not in _SCHEMES[self.kind] or not has_place or needs_port:
            raise ValueError(f"address: a scanner of kind {self.kind} has one like {_EXAMPLES[self.kind]}")
        if self.token is not None and self.kind is not ScannerKind.HTTP:
            raise ValueError("token: only scanners of kind http take one")
        return self
