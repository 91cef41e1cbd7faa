"""Who administers, and how deletions can be undone."""

from pydantic import Field

from mediarepo.config.base import Section
from mediarepo.config.secrets import Secret


class AdminConfig(Section):
    """Who may use the admin endpoints, and what deleting means."""

    token: Secret | None = None
    """A token that administers all homeservers: text, {file: PATH} or {env: NAME}; none: no such token."""
    user_ids: list[str] = []
    """Users who administer their homeserver's media here, besides the homeserver's own admins."""
    ask_homeserver: bool = True
    """Whether the homeserver's own admins (as Synapse tells them) administer its media here."""
    trash_ms: int = Field(default=24 * 3_600_000, ge=0)
    """How long deleted media can be restored, in ms, before their content is removed."""
    trash_interval_ms: int = Field(default=60_000, ge=100)
    """How often the trash is looked through, in ms."""
