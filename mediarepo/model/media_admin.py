"""Media as admins see and search them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import PlainSerializer, SkipValidation, WithJsonSchema

from mediarepo.model.media import MediaState
from mediarepo.model.mxc import Mxc


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRecord:
    """All metadata of media; `sha256` in hexadecimal digits."""

    mxc: Annotated[Mxc, SkipValidation, PlainSerializer(str), WithJsonSchema({"type": "string"})]
    """Its address."""
    state: MediaState
    """Its state."""
    remote: bool
    """Whether it is remote media."""
    content_type: str
    """The declared content type."""
    upload_name: str | None
    """The file's name."""
    uploaded_by: str | None
    """The uploader, for local media."""
    created_ts: int
    """Time of upload or fetch, in ms since 1970."""
    last_access_ts: int | None
    """Time of last access, in ms since 1970."""
    size_bytes: int | None
    """Its length."""
    sha256: str | None
    """SHA-256 of its content, in hexadecimal digits."""
    authenticated: bool
    """Whether the unauthenticated legacy paths do not serve it."""
    protected: bool
    """Whether it is protected against quarantine."""
    quarantined_by: str | None
    """Who quarantined it, in any way."""
    pinned_by: str | None
    """Who pinned it."""
    held_by: str | None
    """Who put it under a legal hold."""
    trashed_ts: int | None
    """Time of its deletion into the trash, in ms since 1970."""
    width: int | None
    """Width of the picture in pixels, where it was thumbnailed while `thumbnails.blurhash` was on."""
    height: int | None
    """Its height, likewise."""
    blurhash: str | None
    """Its BlurHash, likewise."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """Where content is and what was made of it: `media_count` media have it; the last two are rows by column name."""

    blob_id: int
    store: str
    object_key: str
    size_bytes: int
    sha256: str | None
    sha256_state: str
    ownership: str
    missing_ts: int | None
    created_ts: int
    media_count: int
    thumbnails: list[dict[str, object]]
    thumbnail_failures: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a longer list; `total` counts the whole list."""

    records: list[MediaRecord]
    total: int


class RecordOrder(StrEnum):
    """Sort orders of lists of media."""

    MEDIA_ID = "media_id"
    UPLOAD_NAME = "upload_name"
    CREATED_TS = "created_ts"
    LAST_ACCESS_TS = "last_access_ts"
    MEDIA_LENGTH = "media_length"
    MEDIA_TYPE = "media_type"
    QUARANTINED_BY = "quarantined_by"
    SAFE_FROM_QUARANTINE = "safe_from_quarantine"


@dataclass(frozen=True, slots=True)
class Change:
    """A quarantine, or the lifting of one."""

    change_id: int
    mxc: Mxc
    quarantined: bool


class UserOrder(StrEnum):
    """Sort orders of the list of users."""

    USER_ID = "user_id"
    DISPLAYNAME = "displayname"
    MEDIA_LENGTH = "media_length"
    MEDIA_COUNT = "media_count"


@dataclass(frozen=True, slots=True)
class UserUsage:
    """The number and bytes of a user's uploads; `displayname` if the homeserver tells it."""

    user_id: str
    media_count: int
    media_length: int
    displayname: str | None = None


@dataclass(frozen=True, slots=True)
class HiddenHash:
    """A quarantined hash, by whom and why."""

    sha256: bytes
    quarantined_by: str
    reason: str | None
    created_ts: int


@dataclass(frozen=True, slots=True)
class HiddenServer:
    """A quarantined server, by whom and why."""

    server_name: str
    """Its name."""
    quarantined_by: str
    """By whom."""
    reason: str | None
    """Why."""
    created_ts: int
    """Time of the quarantine, in ms since 1970."""


class SearchOrder(StrEnum):
    """Sort orders of search results."""

    CREATED_TS = "created_ts"
    LAST_ACCESS_TS = "last_access_ts"
    SIZE_BYTES = "size_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Conditions that must all match; None: no such condition.

    `hidden_from` are server names whose own media are left out, for admins who may not see them; `viewer` is the
    homeserver whose quarantines, pins and holds count, None: all of them.
    """

    server_name: str | None = None
    user_id: str | None = None
    remote: bool | None = None
    state: MediaState | None = None
    content_type: str | None = None
    upload_name: str | None = None
    sha256: bytes | None = None
    quarantined: bool | None = None
    pinned: bool | None = None
    held: bool | None = None
    min_size_bytes: int | None = None
    max_size_bytes: int | None = None
    created_after_ts: int | None = None
    created_before_ts: int | None = None
    idle_since_ts: int | None = None
    hidden_from: tuple[str, ...] = ()
    viewer: str | None = None


@dataclass(frozen=True, slots=True)
class SearchPlace:
    """Where a page ended: the sort value, and the media that had it."""

    value: int
    mxc: Mxc
