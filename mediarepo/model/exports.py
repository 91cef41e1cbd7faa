"""Media to be exported, and the results."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from mediarepo.model.media import Blob, MediaState
from mediarepo.model.mxc import Mxc


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSelection:
    """Which media leave: of one server or of all whose own they are, by one user, since a time, not imported.

    `with_remote` adds all that was fetched from other servers. `native_only` leaves out what was imported and has been
    neither filled nor hidden since.
    """

    server_name: str | None = None
    user_id: str | None = None
    with_remote: bool = False
    since_ts: int | None = None
    native_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportMedia:
    """All that is known of one piece of media; `quarantined_by` is whoever hid it, in whichever way."""

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
        """How long the content is, if there is or was any."""
        return None if self.blob is None else self.blob.size_bytes


class ExportOutcome(StrEnum):
    """What became of one piece of media."""

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
    """One piece of media, what became of it, and why not more; `path` is where its content lies now."""

    media: ExportMedia
    outcome: ExportOutcome
    words: str = ""
    path: str | None = None
    sha256: bytes | None = None
    written_bytes: int = 0


@dataclass(slots=True)
class ExportTally:
    """How far an export has come; `total_media` and `total_bytes` are what it began with."""

    total_media: int = 0
    total_bytes: int = 0
    media: int = 0
    bytes: int = 0
    written_bytes: int = 0
    outcomes: Counter[ExportOutcome] = field(default_factory=Counter)

    def note(self, result: ExportResult) -> None:
        """Count one."""
        self.media += 1
        self.bytes += result.media.size_bytes or 0
        self.written_bytes += result.written_bytes
        self.outcomes[result.outcome] += 1
