"""What content scanners are asked, and what they say."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mediarepo.model.byte_stream import Sink
from mediarepo.model.media import NewMedia

SendContent = Callable[[Sink], Awaitable[None]]
"""Pushes all bytes of some content to a sink; may be called again."""

HELD_REASON = "waits for a scanner"
"""The reason of a quarantine that lasts until a scanner has given its verdict."""


class ScanClass(StrEnum):
    """What media are to scanners."""

    LOCAL = "local"
    REMOTE = "remote"
    PREVIEWS = "previews"
    IMPORTS = "imports"


class Verdict(StrEnum):
    """What a scanner says of content."""

    CLEAN = "clean"
    INFECTED = "infected"
    UNSCANNABLE = "unscannable"


@dataclass(frozen=True, slots=True)
class ScanSubject:
    """Content to be scanned; `content_type` is what its uploader declared."""

    sha256: bytes
    size_bytes: int
    content_type: str
    scan_class: ScanClass


@dataclass(frozen=True, slots=True)
class ScanResult:
    """A verdict; `detail` names what was found, or why the content cannot be scanned.

    `signatures` is the version of the scanner's signatures.
    """

    verdict: Verdict
    signatures: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class KnownResult:
    """A remembered result; `lifted`: what was found, somebody has shown again."""

    result: ScanResult
    lifted: bool


@dataclass(frozen=True, slots=True)
class QueuedScan:
    """Content that waits for a scanner, claimed by a worker; `attempts` counts this one, too."""

    subject: ScanSubject
    attempts: int
    queued_ts: int


@dataclass(frozen=True, slots=True)
class ScanRound:
    """How far a round over all stored content is; `finished_ts` None: it runs. Times in ms."""

    signatures: str
    after_blob_id: int
    started_ts: int
    finished_ts: int | None


@dataclass(frozen=True, slots=True)
class ScannerFigures:
    """What is recorded of a scanner: what waits and is held, results by verdict, and the last round."""

    waiting: int
    held: int
    results: dict[str, int]
    last_round: ScanRound | None


class ContentGate(Protocol):
    """Stands before the publication of new content."""

    def holds_back(self, scan_class: ScanClass) -> bool:
        """Return whether content of a class may not be passed on before it is stored."""
        ...

    async def admit(self, media: NewMedia, sha256: bytes, size_bytes: int, send: SendContent | None) -> bool:
        """Let content be published as media; False when that takes its bytes and there are none (`send`).

        Raises ForbiddenError for content that is refused, UnavailableError when nobody can say.
        """
        ...


def owner_of(scanner: str) -> str:
    """Return the owner of what a scanner has quarantined."""
    return f"scanner:{scanner}"
