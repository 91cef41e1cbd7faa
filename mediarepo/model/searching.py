"""Looking for media by what is known of them."""

from dataclasses import dataclass
from enum import StrEnum

from mediarepo.model.media import MediaState
from mediarepo.model.mxc import Mxc


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
