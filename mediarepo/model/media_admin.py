"""Media as admins see and search them."""

from dataclasses import dataclass
from enum import StrEnum

from mediarepo.model.media import MediaState
from mediarepo.model.mxc import Mxc


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRecord:
    """All metadata of media; `sha256` in hexadecimal digits."""

    mxc: Mxc
    state: MediaState
    remote: bool
    content_type: str
    upload_name: str | None
    uploaded_by: str | None
    created_ts: int
    last_access_ts: int | None
    size_bytes: int | None
    sha256: str | None
    authenticated: bool
    protected: bool
    quarantined_by: str | None
    pinned_by: str | None
    held_by: str | None
    trashed_ts: int | None


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
    quarantined_by: str
    reason: str | None
    created_ts: int


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
