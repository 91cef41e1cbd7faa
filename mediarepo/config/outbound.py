"""Whom we connect to, apart from what the operator configured by address."""

import ipaddress

from pydantic import Field, field_validator

from mediarepo.config.base import Section


class OutboundConfig(Section):
    """Rules for every connection to other people's servers."""

    allow_networks: list[str] = []
    """Networks that may be connected to although they are not public, as in "10.1.0.0/16"."""
    deny_networks: list[str] = []
    """Networks that are never connected to, allowed or not."""
    ca_file: str | None = None
    """A file of certificates to trust instead of the system's, in PEM."""
    resolve_timeout_ms: int = Field(default=10_000, ge=100)
    """How long looking up a name may take, in ms."""
    max_redirects: int = Field(default=5, ge=0, le=20)
    """How many redirects of other servers are followed; of web pages it is 20, as in browsers."""
    max_connections: int = Field(default=200, ge=1)
    """Connections at a time, a process."""

    @field_validator("allow_networks", "deny_networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            ipaddress.ip_network(text)
        return value
