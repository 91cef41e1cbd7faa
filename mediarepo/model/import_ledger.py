"""The import ledger: states, reasons and results of each source row."""

from dataclasses import dataclass, field
from enum import StrEnum

from mediarepo.model.import_source import SourceKey, SourceMedia
from mediarepo.model.media import ThumbnailSpec


class ObjectMode(StrEnum):
    """How objects in buckets are imported."""

    AUTO = "auto"
    ADOPT = "adopt"
    COPY = "copy"
    STREAM = "stream"


class RemoteChoice(StrEnum):
    """Which remote media are imported; they could also be fetched again."""

    AUTO = "auto"
    ALL = "all"
    NONE = "none"
    RECENT = "recent"


class ItemState(StrEnum):
    """Result of one row of a source."""

    COMMITTED = "committed"
    SKIPPED = "skipped"
    MISSING = "missing"
    MISMATCHED = "mismatched"
    FAILED = "failed"


class ItemMode(StrEnum):
    """How the bytes were imported; `pending` media have none yet."""

    ADOPT = "adopt"
    COPY = "copy"
    STREAM = "stream"
    UPLOAD = "upload"
    PENDING = "pending"


class ImportReason(StrEnum):
    """Why a row was not imported as it is, for programs; the text beside it is for people."""

    THUMBNAIL = "thumbnail"
    HIDDEN_REMOVED = "hidden_removed"
    URL_PREVIEW = "url_preview"
    PREVIEW_EXPIRED = "preview_expired"
    PENDING_EXPIRED = "pending_expired"
    REMOTE_NOT_WANTED = "remote_not_wanted"
    OWN_HOMESERVER = "own_homeserver"
    EXISTS_HERE = "exists_here"
    DELETED_HERE = "deleted_here"
    NO_MXC = "no_mxc"
    UNSAFE = "unsafe"
    NOT_FOUND = "not_found"
    SIZE = "size"
    HASH = "hash"
    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    STORAGE = "storage"
    REFUSED = "refused"
    BLOCKED = "blocked"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True)
class ImportedBytes:
    """Durable bytes, and their place.

    `sha256_known` when we have hashed them ourselves. An object of ours without `intent` belongs to another item, or to
    an existing blob.
    """

    store: str
    object_key: str | None
    size_bytes: int
    sha256: bytes | None
    sha256_known: bool
    borrowed: bool = False
    intent: bool = False


@dataclass(frozen=True, slots=True)
class ImportedThumbnail:
    """A source's thumbnail, and the configured size it answers; `content` is the place of its bytes."""

    key: SourceKey
    spec: ThumbnailSpec
    content_type: str
    content: ImportedBytes


class ThumbnailEnd(StrEnum):
    """Result of one thumbnail of the source."""

    TAKEN = "taken"
    HERE = "here"
    OTHER_SIZE = "other_size"
    OTHER_TYPE = "other_type"
    WITHOUT_MEDIA = "without_media"
    NOT_FOUND = "not_found"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """The result of one row, to be written to the ledger, with its content if any.

    `place` describes where the bytes are at the source.
    """

    media: SourceMedia
    state: ItemState
    mode: ItemMode | None = None
    reason: ImportReason | None = None
    words: str = ""
    place: str | None = None
    content: ImportedBytes | None = None
    preview_expires_ts: int | None = None

    @property
    def recordable(self) -> bool:
        """Whether the address is a valid mxc that the source may speak for."""
        return self.reason not in {ImportReason.NO_MXC, ImportReason.OWN_HOMESERVER}

    @property
    def why(self) -> str | None:
        """The reason with its text, as stored in the ledger."""
        if self.reason is None:
            return None
        return f"{self.reason}: {self.words}" if self.words else str(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What is known of a row: from the ledger (`state` etc.), and from media here (`media_state`)."""

    state: ItemState | None = None
    mode: ItemMode | None = None
    why: str | None = None
    fingerprint: bytes | None = None
    gone: bool = False
    media_state: str | None = None
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class ImportSource:
    """A source as recorded in the database."""

    source_id: int
    name: str
    kind: str
    finalized_ts: int | None


@dataclass(frozen=True, slots=True)
class ImportRun:
    """One run of an import command."""

    run_id: int
    source_id: int
    command: str
    started_ts: int
    heartbeat_ts: int
    finished_ts: int | None
    complete: bool
    figures: dict[str, object] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerItem:
    """One line of the ledger."""

    server_name: str
    media_id: str
    kind: str
    state: ItemState
    mode: str | None
    reason: str | None
    size_bytes: int | None
    place: str | None
    gone: bool
    verified: str | None


@dataclass(frozen=True, slots=True)
class LedgerUnclaimedBytes:
    """Bytes that no row of the source mentions."""

    place: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LedgerSum:
    """Number of lines and bytes with one state, reason (its first word) and mode."""

    state: ItemState
    reason: str | None
    mode: str | None
    count: int
    size_bytes: int
