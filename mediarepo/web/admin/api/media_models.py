"""Request and response models of the admin API for media."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, SerializerFunctionWrapHandler, model_serializer

from mediarepo.model.media import MediaState
from mediarepo.model.media_admin import HiddenServer, MediaRecord, SearchOrder

BIGINT = 2**63 - 1
"""The largest number that the database takes."""


class ApiModel(BaseModel):
    """Base of all models; unknown names are refused, so that a misspelt filter never selects everything."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)


class Nothing(ApiModel):
    """No parameters."""


class Done(ApiModel):
    """The action was done."""

    affected: int
    """Number of media changed, among those the admin may see."""
    left_out: dict[str, int] = {}
    """How many it left out, by reason: protected, out_of_reach, held, unknown; still_in_force: others set it too.

    Left out itself when there is nothing to say."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        if not self.left_out:
            del document["left_out"]
        return document


class Reason(ApiModel):
    """The reason, for the audit log."""

    reason: str | None = Field(default=None, max_length=2000)
    """In words."""


class MediaFilter(ApiModel):
    """Search conditions; all given ones must match."""

    server_name: str | None = None
    """Only media of this server."""
    user_id: str | None = None
    """Only uploads of this user."""
    remote: bool | None = None
    """Only remote media, or only local media."""
    state: MediaState | None = None
    """Only media in this state."""
    content_type: str | None = None
    """Only media whose declared type begins with this, such as `image/`."""
    upload_name: str | None = None
    """Only media whose file name contains this."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Only media with this content, in hexadecimal digits."""
    quarantined: bool | None = None
    """Only quarantined media, or only others."""
    pinned: bool | None = None
    """Only pinned media, or only others."""
    held: bool | None = None
    """Only media under a legal hold, or only others."""
    min_size_bytes: int | None = Field(default=None, ge=0, le=BIGINT)
    """Minimum size in bytes."""
    max_size_bytes: int | None = Field(default=None, ge=0, le=BIGINT)
    """Maximum size in bytes."""
    created_after_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media created at or after this time, in ms since 1970."""
    created_before_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media created before this time, in ms since 1970."""
    idle_since_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media not accessed since this time, in ms since 1970."""


class MediaQuery(MediaFilter):
    """A search, and one page of its results."""

    order_by: SearchOrder = SearchOrder.CREATED_TS
    """Sort order, largest value first."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Maximum number of results."""
    after: str | None = Field(default=None, max_length=1000)
    """The `next` of the previous page."""


class MediaCountQuery(MediaFilter):
    """A search whose results are counted."""

    limit: int = Field(default=10_000, ge=1, le=100_000)
    """Where to stop counting."""


class MediaCount(ApiModel):
    """The number of media that a search finds."""

    media_count: int
    """Number of media, up to the limit."""
    size_bytes: int
    """Total size in bytes; equal content counts once for each of its media."""
    more: bool
    """Whether counting stopped at the limit."""


class PictureAnswer(ApiModel):
    """A thumbnail."""

    content_type: str
    """An image type."""
    data: str
    """The bytes, in base64."""


class MediaAnswer(RootModel[MediaRecord]):
    """All metadata of one piece of media."""

    model_config = ConfigDict(use_attribute_docstrings=False)


class HiddenServers(ApiModel):
    """All quarantined servers."""

    servers: list[HiddenServer]
    """By name."""


class MediaPage(ApiModel):
    """A page of media."""

    media: list[MediaRecord]
    """The results."""
    next: str | None
    """The `after` of the next page; absent on the last page."""
