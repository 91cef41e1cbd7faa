"""Retention policies, candidates and plans."""

from dataclasses import dataclass, field
from enum import StrEnum

from mediarepo.model.mxc import Mxc


class RetentionClass(StrEnum):
    """What a policy applies to: local media, remote media, or thumbnails."""

    LOCAL = "local"
    REMOTE = "remote"
    THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionLimits:
    """A policy's conditions as query parameters; all given times must match.

    `server_names` and `user_patterns` (for LIKE) are alternatives each; empty: all.
    """

    created_before_ts: int | None
    idle_since_ts: int | None
    server_names: list[str] = field(default_factory=list)
    user_patterns: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Media or thumbnails that match a policy; `references` counts the media with this blob, thumbnails have none.

    `used_ts` is the last access, or the creation (ms).
    """

    mxc: Mxc | None
    blob_id: int | None
    uploaded_by: str | None
    used_ts: int
    size_bytes: int
    freed_bytes: int
    references: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What a policy would delete: `size_bytes` as users see it, `freed_bytes` in the bucket.

    `kept_avatars` match but are avatars; `kept_unknown` were kept because their homeserver could not tell.
    """

    count: int
    """Number of media, or of thumbnail packs."""
    size_bytes: int
    """Total bytes as users see them."""
    freed_bytes: int
    """Bytes freed in the bucket: content that other media share stays."""
    kept_avatars: int
    """Number of matching media kept because they are avatars."""
    kept_unknown: int
    """Number of matching media kept because the homeserver could not tell whether they are avatars."""
    examples: list[str]
    """Examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlan:
    """A stored plan: its policy, the policy's `fingerprint` then, and whether it is armed."""

    policy: str
    fingerprint: str
    plan: RetentionPlan
    planned_ts: int
    armed_ts: int | None
    armed_by: str | None
