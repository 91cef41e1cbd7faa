"""Administrators, the trash, and how homeservers share quarantines."""

from collections.abc import Sequence

from pydantic import Field

from mediarepo.config.base import Secret, Section


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


class QuarantineConfig(Section):
    """For whom a homeserver admin's quarantine counts: that homeserver, and those it shares with."""

    reloadable = frozenset({"shared"})

    shared: list[list[str]] = []
    """Groups of homeservers: content that one of them quarantines is quarantined for the whole group."""

    def sharing(self, server_name: str, ours: Sequence[str]) -> list[str]:
        """Return the homeservers for which one's quarantines count, itself included."""
        groups = [set(group) for group in self.shared if server_name in group]
        return sorted({server_name}.union(*groups) & set(ours) | {server_name})
