"""Retention policies, the sweep of orphaned objects, the journal, and last-access times."""

import hashlib
from typing import Self

from pydantic import Field, model_validator

from mediarepo.config.base import Section
from mediarepo.model.media import StoreClass
from mediarepo.model.retention import RetentionClass


class JournalConfig(Section):
    """The journal in the bucket, from which a lost database can be rebuilt (`mediarepo rebuild`)."""

    enabled: bool = True
    """Write what changed in the tables beside the objects of the store that takes uploads."""
    interval_ms: int = Field(default=60_000, ge=1_000)
    """How often, in ms, where something changed; one small object each time."""
    snapshot_interval_ms: int = Field(default=86_400_000, ge=1_000)
    """How often a whole copy is written, in ms."""
    keep_ms: int = Field(default=1_209_600_000, ge=0)
    """How long copies and changes are kept, in ms; the last two copies, and what came after them, always are."""


class RetentionPolicy(Section):
    """One policy; all given ages must be exceeded."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """A name for commands and logs."""
    what: RetentionClass
    """local (uploads, which go into the trash first), remote (other servers' media), or thumbnails (regenerated)."""
    server_names: list[str] = []
    """Only media of these servers; none given: all. Not for thumbnails."""
    user_ids: list[str] = []
    """Only uploads of these users, with the wildcards * and ?; none given: all. Only for local media."""
    max_age_ms: int | None = Field(default=None, ge=0)
    """Delete what was stored longer ago than this, in ms."""
    max_idle_ms: int | None = Field(default=None, ge=0)
    """Delete what was not requested for this long, in ms."""
    high_bytes: int | None = Field(default=None, ge=0)
    """When all together take more bytes than this, the least recently used are deleted, down to low_bytes."""
    low_bytes: int | None = Field(default=None, ge=0)
    """See high_bytes."""
    keep_avatars: bool = True
    """Keep avatars, and media that may be one because the homeserver did not answer. Only for local media."""

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
        """Return a hash of the policy, which changes when the policy does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class RetentionConfig(Section):
    """Retention policies; none deletes anything before it was planned, and run or armed (`mediarepo retention`)."""

    reloadable = frozenset({"policies", "plan_lifetime_ms"})

    policies: list[RetentionPolicy] = []
    """The retention policies."""
    interval_ms: int = Field(default=3_600_000, ge=1_000)
    """How often armed policies run, in ms."""
    plan_lifetime_ms: int = Field(default=7 * 24 * 3_600_000, ge=60_000)
    """Maximum age of the plan when a policy is armed or run by hand, in ms."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [policy.name for policy in self.policies]
        if len(names) != len(set(names)):
            raise ValueError("policies need names that differ")
        return self


class StorageMovePolicy(Section):
    """One policy; an object must fulfil all given conditions."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """A name for commands and logs."""
    from_store: str
    """The store that objects leave."""
    to_store: str
    """The store that takes them."""
    classes: list[StoreClass] = []
    """Only local (uploads), remote (other servers' media) or thumbnails; none given: all."""
    server_name: str | None = None
    """Only media of this server."""
    max_age_ms: int | None = Field(default=None, ge=0)
    """Move what was stored longer ago than this, in ms."""
    max_idle_ms: int | None = Field(default=None, ge=0)
    """Move what was not requested for this long, in ms."""
    larger_than_bytes: int | None = Field(default=None, ge=0)
    """Move only larger objects, in bytes."""

    @model_validator(mode="after")
    def _has_conditions(self) -> Self:
        if self.from_store == self.to_store:
            raise ValueError("from_store and to_store are one store")
        if self.max_age_ms is None and self.max_idle_ms is None and self.larger_than_bytes is None:
            raise ValueError(
                "give max_age_ms, max_idle_ms or larger_than_bytes; `mediarepo stores move` moves everything"
            )
        return self

    def fingerprint(self) -> str:
        """Return a hash of the policy, which changes when the policy does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class StorageMovesConfig(Section):
    """Policies that move objects to other stores; none moves anything before it is planned, and run or armed."""

    policies: list[StorageMovePolicy] = []
    """The policies."""
    interval_ms: int = Field(default=86_400_000, ge=1_000)
    """How often armed policies run, in ms."""
    plan_lifetime_ms: int = Field(default=7 * 24 * 3_600_000, ge=60_000)
    """Maximum age of the plan when a policy is armed or run by hand, in ms."""
    grace_ms: int = Field(default=86_400_000, ge=600_000)
    """How long old objects stay, for those who read them, in ms."""
    jobs: int = Field(default=2, ge=1, le=64)
    """How many objects are copied in parallel."""
    max_bytes_per_s: int | None = Field(default=None, ge=1)
    """How many bytes a second are read at most; none: no limit."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [policy.name for policy in self.policies]
        if len(names) != len(set(names)):
            raise ValueError("policies need names that differ")
        return self


class SweepConfig(Section):
    """Garbage collection: deletes what crashes left in the buckets."""

    reloadable = frozenset({"max_unknown"})

    enabled: bool = True
    """Run the sweep as a scheduled job; off: only `mediarepo sweep` does."""
    interval_ms: int = Field(default=3_600_000, ge=1_000)
    """How often, in ms."""
    grace_ms: int = Field(default=86_400_000, ge=1_000)
    """An orphaned object is kept until its key is this old (the grace period), in ms."""
    unknown_object_age_ms: int = Field(default=604_800_000, ge=0)
    """An orphaned object is deleted only when it was first seen so long ago, in ms; never when first seen."""
    max_unknown: int = Field(default=100, ge=0)
    """A sweep that finds more orphaned objects than this, and more than 1 % of all, stops and deletes nothing."""
    outbox_interval_ms: int = Field(default=5_000, ge=10)
    """How often queued objects are deleted, in ms."""


class LastAccessConfig(Section):
    """Last-access times of media."""

    reloadable = frozenset({"max_buffered"})

    flush_interval_ms: int = Field(default=60_000, ge=10)
    """How often last-access times are written, in ms."""
    max_buffered: int = Field(default=50_000, ge=1)
    """Maximum number of media between two writes."""
