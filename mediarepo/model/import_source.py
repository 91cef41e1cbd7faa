"""Media as an import source describes them."""

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from mediarepo.model.mxc import Mxc

_DAY_MS = 24 * 60 * 60 * 1000
_FINGERPRINT_BYTES = 8

SAMPLES = 20
"""How many originals a preflight looks for."""


class MediaKind(StrEnum):
    """The collection of a source that media belong to."""

    LOCAL = "local"
    REMOTE = "remote"
    URL_CACHE = "url_cache"
    THUMBNAIL = "thumbnail"


class SourceKey(NamedTuple):
    """The sort key of media, as bytes of UTF-8; iteration can resume after it."""

    server_name: str
    media_id: str

    @property
    def order(self) -> tuple[bytes, bytes]:
        """The key as it compares in every source, whatever its collation."""
        return self.server_name.encode(errors="surrogateescape"), self.media_id.encode(errors="surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceMedia:
    """One row of a source, verbatim but for characters that Postgres cannot keep.

    `server_name` and `media_id` are not checked and may be no mxc address at all. `filesystem_id` is what the source
    itself calls the place of the bytes. `repaired` names the columns whose text or value could not be kept whole.
    `may_lack_content` says that the source removes content and keeps the row, as a matter of course.
    `size_bytes` is None when the source does not know it. `expires_ts` is until when pending media may be filled.
    `block_only` says that the source has no such media, and only keeps the address from being served.
    """

    server_name: str
    media_id: str
    kind: MediaKind
    content_type: str | None = None
    size_bytes: int | None = None
    created_ts: int | None = None
    upload_name: str | None = None
    user_id: str | None = None
    last_access_ts: int | None = None
    quarantined_by: str | None = None
    protected: bool = False
    authenticated: bool = False
    sha256: bytes | None = None
    pending: bool = False
    expires_ts: int | None = None
    filesystem_id: str | None = None
    repaired: tuple[str, ...] = ()
    block_only: bool = False
    may_lack_content: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the source's own users uploaded it, or its own previews made it."""
        return self.kind is not MediaKind.REMOTE

    @property
    def key(self) -> SourceKey:
        """Its sort key."""
        return SourceKey(self.server_name, self.media_id)

    @property
    def fingerprint(self) -> bytes:
        """Eight bytes that change when any column does; last access counts by day."""
        facts = [
            self.kind,
            self.content_type,
            self.size_bytes,
            self.created_ts,
            self.upload_name,
            self.user_id,
            None if self.last_access_ts is None else self.last_access_ts // _DAY_MS,
            self.quarantined_by,
            self.protected,
            self.authenticated,
            None if self.sha256 is None else self.sha256.hex(),
            self.pending,
            self.expires_ts,
            self.filesystem_id,
        ]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=_FINGERPRINT_BYTES).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceThumbnail:
    """A source's thumbnail; `width` and `height` are what it is looked up by, not its pixels."""

    server_name: str
    media_id: str
    kind: MediaKind
    width: int
    height: int
    method: str
    content_type: str
    size_bytes: int | None = None
    filesystem_id: str | None = None
    animated: bool = False


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes in a local file; `shelf` names the byte source that has it."""

    byte_source: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ObjectBytes:
    """Bytes in an object; `etag` without quotes, or None when unknown."""

    byte_source: str
    bucket: str
    object_key: str
    size_bytes: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class DownloadBytes:
    """Bytes to be downloaded from the source's server; `size_bytes` is what its database says."""

    byte_source: str
    path: str
    size_bytes: int


SourceBytes = FileBytes | ObjectBytes | DownloadBytes


class ResolutionState(StrEnum):
    """Result of looking up a row's bytes; `unreadable` does not say whether they exist."""

    FOUND = "found"
    MISSING = "missing"
    MISMATCH = "mismatch"
    UNSAFE = "unsafe"
    UNREADABLE = "unreadable"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where the bytes are, or why not; `candidates` are all that were found, in the source's own order."""

    state: ResolutionState
    words: str
    found: SourceBytes | None = None
    candidates: tuple[SourceBytes, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceItem:
    """Media, with the result of looking up their bytes."""

    media: SourceMedia
    resolution: Resolution


@dataclass(frozen=True, slots=True)
class UnclaimedBytes:
    """Bytes that no row of the source mentions."""

    found: SourceBytes


@dataclass(slots=True)
class PreflightReport:
    """Findings of a preflight check, for the operator; with `problems`, an import cannot work yet."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


class ReadThroughSource(Protocol):
    """Imports single media on request."""

    async def import_media(self, mxc: Mxc, *, unauthenticated: bool) -> bool:
        """Import media that is not here; returns whether its row has changed."""
        ...

    async def refresh_media(self, mxc: Mxc, source_id: int) -> bool:
        """Compare imported media with its source; returns whether its row has changed."""
        ...
