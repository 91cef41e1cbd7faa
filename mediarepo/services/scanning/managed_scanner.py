"""A configured scanner, and whether it is there."""

import asyncio
import fnmatch
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mediarepo.config.scanners import ScannerConfig, WhenDown
from mediarepo.errors import LimitExceededError
from mediarepo.model.concurrency import Admission
from mediarepo.model.marks import SMALLEST_HIDDEN_BYTES
from mediarepo.model.scans import ScanClass, ScanResult, ScanSubject, SendContent
from mediarepo.scanners.scanner import Scanner, ScannerError

OPAQUE_TYPE = "application/octet-stream"
"""What clients declare for encrypted files, among others: nobody can tell whether such content can be scanned."""


class ScanOutcome(StrEnum):
    """What became of content, for the metrics; verdicts count by their own names."""

    FAILED = "failed"
    REMEMBERED = "remembered"
    TOO_LARGE = "too_large"
    EXCLUDED_TYPE = "excluded_type"
    OPAQUE = "opaque"
    LET_THROUGH = "let_through"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanMetrics:
    """Takes note of scans: what became of them, how long they took, and whether the scanner is up."""

    on_outcome: Callable[[str], None]
    on_seconds: Callable[[float], None]
    on_up: Callable[[bool], None]
    on_outage: Callable[[str | None], None]


@dataclass(slots=True, kw_only=True)
class ManagedScanner:
    """A scanner by its name; `signatures` is None before it has answered for the first time."""

    name: str
    config: ScannerConfig
    client: Scanner
    metrics: ScanMetrics
    signatures: str | None = None
    is_up: bool = True
    places: Admission = field(init=False)

    def __post_init__(self) -> None:
        """Make the places for scans before answers."""
        self.places = Admission(
            f"wait for the scanner {self.name}",
            places=self.config.concurrency,
            share=self.config.concurrency,
            max_waiting=self.config.max_waiting,
            wait_s=self.config.timeout_ms / 1000,
        )

    async def check(self) -> bool:
        """Ask whether it is there, and for its signatures' version; returns whether it is."""
        try:
            async with asyncio.timeout(2 * self.config.connect_timeout_ms / 1000):
                self.signatures = await self.client.check()
        except (ScannerError, TimeoutError) as exc:
            self._note(str(exc) or "no answer in time")
        else:
            self._note(None)
        return self.is_up

    def _note(self, reason: str | None) -> None:
        self.is_up = reason is None
        self.metrics.on_up(self.is_up)
        self.metrics.on_outage(reason)

    async def scan(self, subject: ScanSubject, send: SendContent) -> ScanResult:
        """Have content scanned, within `timeout_ms`.

        Raises ScannerError without a verdict; then it is known whether the scanner is there. What `send` raises passes.
        """
        began = time.monotonic()
        if self.signatures is None and not await self.check():
            self.metrics.on_outcome(ScanOutcome.FAILED)
            raise ScannerError("it is down")
        signatures = self.signatures or ""
        try:
            async with asyncio.timeout(self.config.timeout_ms / 1000):
                result = await self.client.scan(subject, send)
        except (ScannerError, TimeoutError) as exc:
            self.metrics.on_outcome(ScanOutcome.FAILED)
            await self.check()
            raise ScannerError(str(exc) or f"no verdict within {self.config.timeout_ms} ms") from exc
        self.metrics.on_seconds(time.monotonic() - began)
        self.metrics.on_outcome(result.verdict)
        if subject.content_type == OPAQUE_TYPE:
            self.metrics.on_outcome(ScanOutcome.OPAQUE)
        return result if result.signatures else replace(result, signatures=signatures)

    async def scan_now(self, subject: ScanSubject, send: SendContent) -> ScanResult:
        """Have content scanned before its upload is answered, in one of the places for that. Raises ScannerError."""
        try:
            async with self.places.enter():
                return await self.scan(subject, send)
        except LimitExceededError as exc:
            self.metrics.on_outcome(ScanOutcome.FAILED)
            raise ScannerError("it has too much to do") from exc

    def covers(self, subject: ScanSubject) -> bool:
        """Return whether the rules let content be scanned, whatever its size; counts what they leave out by type."""
        if subject.scan_class not in self.config.classes or subject.size_bytes < SMALLEST_HIDDEN_BYTES:
            return False
        content_type = subject.content_type.partition(";")[0].strip().lower()
        if _matches(content_type, self.config.content_types) and not _matches(
            content_type, self.config.except_content_types
        ):
            return True
        self.metrics.on_outcome(ScanOutcome.EXCLUDED_TYPE)
        return False

    def is_too_large(self, subject: ScanSubject) -> bool:
        """Return whether content is larger than what is scanned, and count it."""
        if subject.size_bytes <= self.config.max_bytes:
            return False
        self.metrics.on_outcome(ScanOutcome.TOO_LARGE)
        return True

    def when_down(self, scan_class: ScanClass) -> WhenDown:
        """Return what happens to new media of a class while there is no verdict."""
        config = self.config.when_down
        match scan_class:
            case ScanClass.LOCAL:
                return config.local
            case ScanClass.REMOTE:
                return config.remote
            case ScanClass.PREVIEWS:
                return config.previews
            case ScanClass.IMPORTS:
                return WhenDown.OPEN


def _matches(content_type: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(content_type, glob.lower()) for glob in globs)
