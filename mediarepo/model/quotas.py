"""How much a user may store, and the room promised to an upload."""

from dataclasses import dataclass


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
