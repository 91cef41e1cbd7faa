"""Request and response models of the admin API for media."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from mediarepo.model.media import MediaState
from mediarepo.model.media_admin import SearchOrder

BIGINT = 2**63 - 1
"""The largest number that the database takes."""


class Shape(BaseModel):
    """Base of all models; unknown names are refused, so that a misspelt filter never selects everything."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Nothing(Shape):
    """No parameters."""


class Done(Shape):
    """The action was done."""

    affected: int
    """How many media it changed, as far as one's own reach goes."""
    left_out: dict[str, int] = {}
    """How many it left out, by reason: protected, out_of_reach, held, unknown; still_in_force: others set it too.

    Left out itself when there is nothing to say."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        if not self.left_out:
            del document["left_out"]
        return document


class Reason(Shape):
    """The reason, for the audit log."""

    reason: str | None = Field(default=None, max_length=2000)
    """In words."""


class MediaQuery(Shape):
    """Search conditions; all given ones must match."""

    server_name: str | None = None
    """Only media of this server."""
    user_id: str | None = None
    """Only uploads of this user."""
    remote: bool | None = None
    """Only other servers' media, or only our own."""
    state: MediaState | None = None
    """Only media in this state."""
    content_type: str | None = None
    """Only media whose declared type begins so, as in `image/`."""
    upload_name: str | None = None
    """Only media whose file name contains this."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Only media with this content, in hexadecimal digits."""
    quarantined: bool | None = None
    """Only media that are hidden, or only those that are not."""
    pinned: bool | None = None
    """Only media that are pinned, or only those that are not."""
    held: bool | None = None
    """Only media under a legal hold, or only those that are not."""
    min_size_bytes: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media of at least so many bytes."""
    max_size_bytes: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media of at most so many bytes."""
    created_after_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media made at or after this, in ms since 1970."""
    created_before_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media made before this, in ms since 1970."""
    idle_since_ts: int | None = Field(default=None, ge=0, le=BIGINT)
    """Only media not asked for since this, in ms since 1970."""
    order_by: SearchOrder = SearchOrder.CREATED_TS
    """What they are put in order by, the largest first."""
    limit: int = Field(default=100, ge=1, le=1000)
    """How many at most."""
    after: str | None = Field(default=None, max_length=1000)
    """`next` of the page before."""


class MediaShape(Shape):
    """All metadata of one piece of media."""

    mxc: str
    """Its address."""
    state: MediaState
    """Where it is in its life."""
    remote: bool
    """Whether it is another server's."""
    content_type: str
    """As its uploader declared it."""
    upload_name: str | None
    """The file's name."""
    uploaded_by: str | None
    """The user, for our own media."""
    created_ts: int
    """When it was made or fetched, in ms since 1970."""
    last_access_ts: int | None
    """When it was last asked for, in ms since 1970."""
    size_bytes: int | None
    """Its length."""
    sha256: str | None
    """Hash of its content, in hexadecimal digits."""
    authenticated: bool
    """Whether it is left out on the unauthenticated legacy paths."""
    protected: bool
    """Whether it cannot be quarantined."""
    quarantined_by: str | None
    """Who hid it, by whichever way."""
    pinned_by: str | None
    """Who keeps it from retention."""
    held_by: str | None
    """Who keeps it from deletion."""
    trashed_ts: int | None
    """When it was put into the trash, in ms since 1970."""


class HiddenServerShape(Shape):
    """A quarantined server."""

    server_name: str
    """Which."""
    quarantined_by: str
    """By whom."""
    reason: str | None
    """Why."""
    created_ts: int
    """Since when, in ms since 1970."""


class HiddenServers(Shape):
    """All quarantined servers."""

    servers: list[HiddenServerShape]
    """By name."""


class MediaPage(Shape):
    """A page of media."""

    media: list[MediaShape]
    """What was found."""
    next: str | None
    """For `after`; none: there are no more."""
