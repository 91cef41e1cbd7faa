"""Media to be exported, and the results."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from mediarepo.model.media import Blob, MediaState
from mediarepo.model.mxc import Mxc


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSelection:
    """Which media to export: of one server or all local ones, of one user, since a time, not imported.

    `with_remote` adds remote media. `native_only` leaves out imported media, unless filled or quarantined here since.
    """

    server_name: str | None = None
    user_id: str | None = None
    with_remote: bool = False
    since_ts: int | None = None
    native_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportMedia:
    """All metadata of one piece of media; `quarantined_by` is whoever quarantined it, in any way."""

    mxc: Mxc
    state: MediaState
    remote: bool
    content_type: str
    upload_name: str | None
    uploaded_by: str | None
    created_ts: int
    expires_ts: int | None = None
    last_access_ts: int | None
    authenticated: bool
    protected: bool
    quarantined_by: str | None
    blob: Blob | None
    sha256: bytes | None

    @property
    def size_bytes(self) -> int | None:
        """The length of the content, if there is or was any."""
        return None if self.blob is None else self.blob.size_bytes


class ExportOutcome(StrEnum):
    """Result of exporting one piece of media."""

    EXPORTED = "exported"
    ALREADY_THERE = "already_there"
    WITHOUT_CONTENT = "without_content"
    MISSING = "missing"
    DAMAGED = "damaged"
    CONFLICT = "conflict"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """One piece of media, its result and the reason; `path` is where its content is now."""

    media: ExportMedia
    outcome: ExportOutcome
    words: str = ""
    path: str | None = None
    sha256: bytes | None = None
    written_bytes: int = 0


@dataclass(slots=True)
class ExportTally:
    """Progress of an export; `total_media` and `total_bytes` are known at its start."""

    total_media: int = 0
    total_bytes: int = 0
    media: int = 0
    bytes: int = 0
    written_bytes: int = 0
    outcomes: Counter[ExportOutcome] = field(default_factory=Counter)

    def note(self, result: ExportResult) -> None:
        """Count one result."""
        self.media += 1
        self.bytes += result.media.size_bytes or 0
        self.written_bytes += result.written_bytes
        self.outcomes[result.outcome] += 1
