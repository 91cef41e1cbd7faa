"""Administrators, the trash, and how homeservers share quarantines."""

import re
from collections.abc import Sequence

from pydantic import Field, field_validator

from mediarepo.config.base import Secret, Section

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class AdminConfig(Section):
    """Who may use the admin endpoints, and how deletion works."""

    reloadable = frozenset({"token", "user_ids", "ask_homeserver", "trash_ms"})

    token: Secret | None = None
    """The operator's token, for all homeservers: text, {file: PATH} or {env: NAME}; none: no such token."""
    user_ids: list[str] = []
    """Admins of their homeserver's media, besides the homeserver's own admins."""
    ask_homeserver: bool = True
    """Whether the homeserver's own admins (according to Synapse) are admins of its media here."""
    trash_ms: int = Field(default=24 * 3_600_000, ge=0)
    """How long deleted media can be restored, in ms, before their content is deleted."""
    trash_interval_ms: int = Field(default=60_000, ge=100)
    """How often the trash is emptied of expired media, in ms."""


class ConsoleConfig(Section):
    """The admin console, a page for browsers."""

    enabled: bool = False
    """Whether the console is served at /_mediarepo/console/."""
    homeserver_urls: dict[str, str] = {}
    """Client API URLs of homeservers, by server name, for browsers; none: the origin that serves the console."""
    monthly_price_per_gib: float | None = Field(default=None, ge=0)
    """Price of a GiB for a month at the S3 provider: the overview says what growth will cost; none: it does not."""
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    """The currency of that price."""

    @field_validator("homeserver_urls")
    @classmethod
    def _origins(cls, value: dict[str, str]) -> dict[str, str]:
        for name, url in value.items():
            if not _ORIGIN.fullmatch(url):
                raise ValueError(f"{name}: expected https://HOST or https://HOST:PORT, without a path")
        return value


class QuarantineConfig(Section):
    """For whom a homeserver admin's quarantine counts: that homeserver, and those it shares with."""

    reloadable = frozenset({"shared"})

    shared: list[list[str]] = []
    """Groups of homeservers: content that one of them quarantines is quarantined for the whole group."""

    def sharing(self, server_name: str, ours: Sequence[str]) -> list[str]:
        """Return the homeservers for which one's quarantines count, itself included."""
        groups = [set(group) for group in self.shared if server_name in group]
        return sorted({server_name}.union(*groups) & set(ours) | {server_name})
