"""Retention policies, candidates and plans."""

from dataclasses import dataclass, field
from enum import StrEnum

from mediarepo.model.mxc import Mxc


class RetentionClass(StrEnum):
    """What a policy concerns: users' uploads, other servers' media, or kept thumbnails."""

    LOCAL = "local"
    REMOTE = "remote"
    THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionLimits:
    """A policy's conditions in the database's words; of the two times, each that is given must be met.

    `server_names` and `user_patterns` (for LIKE) are alternatives each; empty: all.
    """

    created_before_ts: int | None
    idle_since_ts: int | None
    server_names: list[str] = field(default_factory=list)
    user_patterns: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that a policy's conditions fit; `references` counts the media with this blob, thumbnails have none.

    `used_ts` is when it was last asked for, or made (ms).
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
    """What a policy would remove: `size_bytes` as users see it, `freed_bytes` in the bucket.

    `kept_avatars` fit the conditions but are avatars; `kept_unknown` were kept as their homeserver could not say.
    """

    count: int
    size_bytes: int
    freed_bytes: int
    kept_avatars: int
    kept_unknown: int
    examples: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlan:
    """A plan as it was kept: of which policy, how that read then (`fingerprint`), and whether it is armed since."""

    policy: str
    fingerprint: str
    plan: RetentionPlan
    planned_ts: int
    armed_ts: int | None
    armed_by: str | None
