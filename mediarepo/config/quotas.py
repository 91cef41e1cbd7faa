"""How much users may store."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mediarepo.config.base import Section
from mediarepo.config.users import UserSet


def _uri(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("expected an address such as https://example.org/storage")
    return value


class QuotaRule(UserSet):
    """What each user of a set may store; a rule without limits exempts them."""

    max_bytes: int | None = Field(default=None, ge=0)
    """Bytes of all uploads together, deleted ones aside."""
    max_media: int | None = Field(default=None, ge=0)
    """Number of all uploads."""
    max_file_bytes: int | None = Field(default=None, ge=0)
    """Largest upload, in bytes; never more than uploads.max_bytes."""
    max_pending: int | None = Field(default=None, ge=0)
    """Created media ids without content, instead of uploads.max_pending_per_user."""
    period_ms: int = Field(default=24 * 3_600_000, ge=1_000)
    """The time that the next two are about, in ms."""
    max_bytes_per_period: int | None = Field(default=None, ge=0)
    """Bytes uploaded within any such time."""
    max_media_per_period: int | None = Field(default=None, ge=0)
    """Number of uploads within any such time."""


class QuotasConfig(Section):
    """How much users may store."""

    rules: list[QuotaRule] = []
    """The first rule that fits a user counts; none fits: only uploads.max_bytes does."""
    reservation_ms: int = Field(default=3_600_000, ge=1_000)
    """How long room stays promised to an upload under way, in ms; what a crash leaves behind runs out then."""
    info_uri: Annotated[str, AfterValidator(_uri)] | None = None
    """A page about quotas, told to clients that run into one (M_USER_LIMIT_EXCEEDED); none: M_FORBIDDEN."""
