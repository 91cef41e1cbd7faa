"""Whom to connect to, and how long that may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect over TLS, and who must be there.

    `host` is a DNS name or an IP address without brackets; `tls_name` is what the certificate must be for.
    """

    host: str
    port: int
    tls_name: str
    host_header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Deadlines in ms: for the connection, for the answer's head, between two pieces of its body, for everything."""

    connect_ms: int
    headers_ms: int
    idle_ms: int
    total_ms: int
