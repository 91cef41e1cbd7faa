"""Retention policies, the sweep of orphaned objects, and last-access times."""

import hashlib
from typing import Self

from pydantic import Field, model_validator

from mediarepo.config.base import Section
from mediarepo.model.retention import RetentionClass


class RetentionPolicy(Section):
    """One rule; of the ages given, all must be exceeded."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """A name for commands and logs."""
    what: RetentionClass
    """local (uploads, which go into the trash first), remote (other servers' media), or thumbnails (made anew)."""
    server_names: list[str] = []
    """Only media of these servers; none given: of all. Not for thumbnails."""
    user_ids: list[str] = []
    """Only uploads of these users, * and ? standing for characters; none given: of all. Only for local media."""
    max_age_ms: int | None = Field(default=None, ge=0)
    """Go when stored longer ago than this, in ms."""
    max_idle_ms: int | None = Field(default=None, ge=0)
    """Go when not asked for during so long, in ms."""
    high_bytes: int | None = Field(default=None, ge=0)
    """When all of them together take more bytes than this, those unused for longest go, until low_bytes."""
    low_bytes: int | None = Field(default=None, ge=0)
    """See high_bytes."""
    keep_avatars: bool = True
    """Keep avatars, and what may be one because its homeserver could not tell. Only for local media."""

    @model_validator(mode="after")
    def _has_conditions_that_fit(self) -> Self:
        if (self.high_bytes is None) != (self.low_bytes is None):
            raise ValueError("high_bytes and low_bytes go together")
        if self.high_bytes is not None and self.low_bytes is not None and self.low_bytes > self.high_bytes:
            raise ValueError("low_bytes must not exceed high_bytes")
        if self.what is RetentionClass.LOCAL and self.high_bytes is not None:
            raise ValueError("a budget of bytes is not for local media, which nobody else has: use max_idle_ms")
        if self.max_age_ms is None and self.max_idle_ms is None and self.high_bytes is None:
            raise ValueError("give max_age_ms, max_idle_ms, or high_bytes and low_bytes")
        if self.high_bytes is not None and (self.max_age_ms is not None or self.max_idle_ms is not None):
            raise ValueError("a budget of bytes is a policy of its own, without max_age_ms and max_idle_ms")
        if self.what is not RetentionClass.LOCAL and self.user_ids:
            raise ValueError("user_ids are only for local media")
        if self.what is RetentionClass.THUMBNAILS and self.server_names:
            raise ValueError("server_names are not for thumbnails")
        if self.high_bytes is not None and self.server_names:
            raise ValueError("a budget of bytes is for all servers together")
        return self

    def fingerprint(self) -> str:
        """Tell this policy from one that was changed."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class RetentionConfig(Section):
    """What is let go of, and when; nothing goes before a plan was made and armed (`mediarepo retention`)."""

    reloadable = frozenset({"policies", "plan_lifetime_ms"})

    policies: list[RetentionPolicy] = []
    """The rules."""
    interval_ms: int = Field(default=3_600_000, ge=1_000)
    """How often armed policies are carried out, in ms."""
    plan_lifetime_ms: int = Field(default=7 * 24 * 3_600_000, ge=60_000)
    """How old the plan may be when a policy is armed or run by hand, in ms."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [policy.name for policy in self.policies]
        if len(names) != len(set(names)):
            raise ValueError("policies need names that differ")
        return self


class SweepConfig(Section):
    """How leftovers of crashes are removed."""

    reloadable = frozenset({"max_unknown"})

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

    reloadable = frozenset({"max_buffered"})

    flush_interval_ms: int = Field(default=60_000, ge=10)
    """How often last-access times are written, in ms."""
    max_buffered: int = Field(default=50_000, ge=1)
    """How many media are remembered between two writes at most."""
