"""Media as admins see and search them."""

from dataclasses import dataclass
from enum import StrEnum

from mediarepo.model.media import MediaState
from mediarepo.model.mxc import Mxc


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRecord:
    """Everything that is known of media; `sha256` in hexadecimal digits."""

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
    """A stretch of a longer list; `total` counts the whole."""

    records: list[MediaRecord]
    total: int


class RecordOrder(StrEnum):
    """What lists of media can be put in order by."""

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
    """Media that were hidden, or shown again."""

    change_id: int
    mxc: Mxc
    quarantined: bool


class UserOrder(StrEnum):
    """What the list of users can be put in order by."""

    USER_ID = "user_id"
    DISPLAYNAME = "displayname"
    MEDIA_LENGTH = "media_length"
    MEDIA_COUNT = "media_count"


@dataclass(frozen=True, slots=True)
class UserUsage:
    """One user's uploads: their number, and their bytes together; `displayname` as far as the homeserver tells."""

    user_id: str
    media_count: int
    media_length: int
    displayname: str | None = None


@dataclass(frozen=True, slots=True)
class HiddenHash:
    """Content that is hidden, by whom and why."""

    sha256: bytes
    quarantined_by: str
    reason: str | None
    created_ts: int


@dataclass(frozen=True, slots=True)
class HiddenServer:
    """A server all of whose media are hidden, by whom and why."""

    server_name: str
    quarantined_by: str
    reason: str | None
    created_ts: int


class SearchOrder(StrEnum):
    """What found media can be put in order by."""

    CREATED_TS = "created_ts"
    LAST_ACCESS_TS = "last_access_ts"
    SIZE_BYTES = "size_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Conditions that must all be met; None: no such condition.

    `hidden_from` are server names whose own media are left out, for admins who may not see them; `viewer` is the
    homeserver as whom quarantine, pins and holds are judged, None: all of them together.
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
    """Where a page ended: the value it was put in order by, and the media that had it."""

    value: int
    mxc: Mxc
