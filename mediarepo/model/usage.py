"""Stored bytes and media counts, quotas and reservations."""

from dataclasses import dataclass
from enum import StrEnum


class UsageClass(StrEnum):
    """Which media are counted: local, remote, or in the trash."""

    LOCAL = "local"
    REMOTE = "remote"
    TRASHED = "trashed"


class UsageBy(StrEnum):
    """How usage is grouped; `month` is that of the media's creation, as YYYY-MM in UTC."""

    CLASS = "class"
    SERVER_NAME = "server_name"
    USER_ID = "user_id"
    CONTENT_TYPE = "content_type"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which media are counted; None: all."""

    usage_class: UsageClass | None = None
    server_name: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """The number and bytes of media in one group.

    Equal content counts once for each of its media; stored bytes are in `ObjectUsage`.
    """

    group: dict[str, str]
    """The values of the group."""
    media_count: int
    """How many media."""
    size_bytes: int
    """Total bytes."""


@dataclass(frozen=True, slots=True)
class ObjectUsage:
    """The number and bytes of a store's objects of one class (content, thumbnails, borrowed)."""

    store: str
    object_class: str
    object_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimits:
    """A user's limits; None: none. The last two count uploads within any `period_ms`."""

    max_bytes: int | None
    max_media: int | None
    period_ms: int
    max_bytes_per_period: int | None
    max_media_per_period: int | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Space reserved for an upload; the limits are checked again when it turns out larger."""

    reservation_id: int
    user_id: str
    limits: QuotaLimits


@dataclass(frozen=True, slots=True)
class DayUsage:
    """Usage of media at the end of a day, or as last counted on it."""

    day: str
    """YYYY-MM-DD, in UTC."""
    usage_class: str
    """local, remote or trashed."""
    server_name: str
    """The homeserver of local media; empty for the others."""
    media_count: int
    """How many media."""
    size_bytes: int
    """Total bytes; equal content counts once for each of its media."""


@dataclass(frozen=True, slots=True)
class DayObjects:
    """A store's objects of one class at the end of a day, or as last counted on it."""

    day: str
    """YYYY-MM-DD, in UTC."""
    store: str
    """Its name in the configuration."""
    object_class: str
    """content, thumbnails or borrowed."""
    object_count: int
    """How many objects."""
    size_bytes: int
    """Total bytes."""
