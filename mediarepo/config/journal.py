"""The journal that lies beside the objects, from which a lost database is made anew."""

from pydantic import Field

from mediarepo.config.base import Section


class JournalConfig(Section):
    """What is written beside the objects, so that the bucket alone is enough (`mediarepo rebuild`)."""

    enabled: bool = True
    """Write what changed in the tables beside the objects of the store that takes uploads."""
    interval_ms: int = Field(default=60_000, ge=1_000)
    """How often, in ms, where something changed; one small object each time."""
    snapshot_interval_ms: int = Field(default=86_400_000, ge=1_000)
    """How often a whole copy is written, in ms."""
    keep_ms: int = Field(default=1_209_600_000, ge=0)
    """How long copies and changes are kept, in ms; the last two copies, and what came after them, always are."""
