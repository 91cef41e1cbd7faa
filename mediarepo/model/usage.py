"""Stored bytes and media counts, quotas and reservations."""

from dataclasses import dataclass
from enum import StrEnum


class UsageClass(StrEnum):
    """Which media are counted: users' uploads, other servers' media, and what lies in the trash."""

    LOCAL = "local"
    REMOTE = "remote"
    TRASHED = "trashed"


class UsageBy(StrEnum):
    """What usage can be split by; `month` is that of the media's creation, as YYYY-MM in UTC."""

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
    """How many media share the values of what was split by, and their bytes together.

    Equal content counts once for each of its media; what is stored of it is counted in `ObjectUsage`.
    """

    group: dict[str, str]
    media_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ObjectUsage:
    """How many objects a store holds of one class (content, thumbnails, borrowed), and their bytes together."""

    store: str
    object_class: str
    object_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimits:
    """Limits of one user; None: none. The last two count what was uploaded within any `period_ms`."""

    max_bytes: int | None
    max_media: int | None
    period_ms: int
    max_bytes_per_period: int | None
    max_media_per_period: int | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room that a user's upload was promised; the limits are looked at again where it turns out larger."""

    reservation_id: int
    user_id: str
    limits: QuotaLimits
