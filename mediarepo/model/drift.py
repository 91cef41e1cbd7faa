"""Differences between bucket and database, and databases that are older than their bucket."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class StoreRecency:
    """What was seen of a store: all keys made before `seen_until_ts` (ms) are known.

    `lost_key` is an object that the database should know and does not, seen at `behind_since_ts`.
    """

    store: str
    seen_until_ts: int | None
    behind_since_ts: int | None
    lost_key: str | None


class DriftKind(StrEnum):
    """Kinds of difference between bucket and database."""

    OBJECT_WITHOUT_ROW = "object_without_row"
    LOST_ROW = "lost_row"
    """An object that the database was told of before it was made, and knows nothing of: the database is older."""
    ROW_WITHOUT_OBJECT = "row_without_object"
    SIZE = "size"
    HASH = "hash"
    LEFTOVER_MULTIPART = "leftover_multipart"
    KNOWN_MISSING = "known_missing"
    """Media are marked missing since an earlier check or download, and nobody has accepted the loss."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference; sizes in bytes, None where there is no object or row."""

    kind: DriftKind
    store: str
    object_key: str
    blob_id: int | None = None
    size_in_bucket: int | None = None
    size_in_database: int | None = None
    upload_id: str | None = None


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An object that a row refers to; `sha256` only when verified."""

    blob_id: int
    object_key: str
    size_bytes: int
    sha256: bytes | None = None
