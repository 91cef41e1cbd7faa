"""When leftovers are removed from the bucket."""

from pydantic import Field

from mediarepo.config.base import Section


class SweepConfig(Section):
    """How leftovers of crashes are removed."""

    enabled: bool = True
    """Sweep by the clock; off: only `mediarepo sweep` does."""
    interval_ms: int = Field(default=3_600_000, ge=1_000)
    """How often, in ms."""
    grace_ms: int = Field(default=86_400_000, ge=1_000)
    """An object that no row knows is left alone until its key is this old, in ms."""
    max_unknown: int = Field(default=100, ge=0)
    """A sweep that finds more unknown objects than this, and more than 1 % of all, stops and removes nothing."""
    outbox_interval_ms: int = Field(default=5_000, ge=10)
    """How often queued deletions are carried out, in ms."""


class AccessConfig(Section):
    """How the last access to media is remembered."""

    flush_interval_ms: int = Field(default=60_000, ge=10)
    """How often last-access times are written, in ms."""
    max_buffered: int = Field(default=50_000, ge=1)
    """How many media are remembered between two writes at most."""
