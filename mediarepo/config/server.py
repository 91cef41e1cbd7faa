"""The server process: listening addresses, logs, and the sandbox of its workers."""

import ipaddress
import os
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, field_validator

from mediarepo.config.base import Section


class ListenError(Exception):
    """An address cannot be listened on; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Address:
    """A listening address: the path of a unix socket, or host and TCP port."""

    path: str | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse "127.0.0.1:8000", "[::1]:8000" or "unix:/run/mediarepo.sock". Raises ValueError with what was expected."""
    if text.startswith("unix:"):
        if not text.removeprefix("unix:").startswith("/"):
            raise ValueError(f"{text!r}: a unix socket needs an absolute path, as in unix:/run/mediarepo.sock")
        return Address(path=text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the highest TCP port
        raise ValueError(f"{text!r}: expected HOST:PORT, [IPV6]:PORT or unix:/PATH")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:8000")
    return Address(host=host.strip("[]"), port=int(port))


_MAX_DEFAULT_WORKERS = 4


class ListenConfig(Section):
    """Where the server listens."""

    reloadable = frozenset(
        {"trusted_proxies", "client_ipv4_prefix", "client_ipv6_prefix", "shutdown_delay_ms", "shutdown_timeout_ms"}
    )

    addresses: list[str] = Field(default=["127.0.0.1:8000"], min_length=1)
    """Addresses to listen on: HOST:PORT, [IPV6]:PORT or unix:/PATH."""
    workers: int = Field(default=0, ge=0, le=64)
    """Server processes that share the addresses; 0: one for each core, at most four. Limits are for each of them."""
    socket_mode: str = Field(default="0660", pattern=r"^0?[0-7]{3}$")
    """Permissions of unix sockets, in octal."""
    metrics_address: str | None = None
    """Separate address for /metrics and /health; none: the addresses above."""
    trusted_proxies: list[str] = ["127.0.0.0/8", "::1/128", "unix"]
    """Networks whose X-Forwarded-Host and X-Forwarded-For are trusted; "unix" means the unix sockets."""
    client_ipv4_prefix: int = Field(default=32, ge=8, le=32)
    """Anonymous clients share limits with those whose IPv4 address begins with the same number of bits."""
    client_ipv6_prefix: int = Field(default=64, ge=16, le=128)
    """The same for IPv6: providers assign each customer a prefix of 64 bits, or a shorter one."""
    shutdown_delay_ms: int = Field(default=5_000, ge=0, le=600_000)
    """How long a stopping process still serves while /health/ready says 503, so that proxies stop using it, in ms."""
    shutdown_timeout_ms: int = Field(default=30_000, ge=0)
    """How long running requests may take to finish during shutdown, in ms."""

    @property
    def worker_count(self) -> int:
        """How many server processes there are."""
        return self.workers or min(len(os.sched_getaffinity(0)), _MAX_DEFAULT_WORKERS)

    @field_validator("addresses")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_address(text)
        return value

    @field_validator("metrics_address")
    @classmethod
    def _readable_or_none(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            if text != "unix":
                ipaddress.ip_network(text)
        return value


class LogFormat(StrEnum):
    """Format of log lines."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogConfig(Section):
    """Logging."""

    reloadable = frozenset({"level", "access", "client_address"})

    level: LogLevel = LogLevel.INFO
    """debug, info, warning or error."""
    format: LogFormat = LogFormat.TEXT
    """text (for people) or json (one object per line)."""
    access: bool = False
    """Log each request with its id, user, media, status, bytes and durations; server errors (5xx) are always logged."""
    client_address: bool = True
    """Whether the line of a request has the client's address."""


class SandboxEnforcement(StrEnum):
    """The confinement that a process needs before it reads untrusted bytes."""

    STRICT = "strict"
    AVAILABLE = "available"
    PERMISSIVE = "permissive"


class SandboxConfig(Section):
    """The sandbox of the processes that parse images and web pages."""

    enforcement: SandboxEnforcement = SandboxEnforcement.AVAILABLE
    """strict: no thumbnails or previews without seccomp and Landlock; available: none without what this kernel has;
    permissive: always."""
