"""Stands before the publication of new content: has it scanned, lets it wait for a scan, or refuses it.

Everything that hides media is committed before their row is written: no crash and no other process shows them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mediarepo.config.scanners import ScanTime, WhenDown
from mediarepo.db.scans import ScanTable
from mediarepo.errors import ForbiddenError, UnavailableError
from mediarepo.model.media import NewMedia
from mediarepo.model.scans import KnownResult, ScanClass, ScanResult, ScanSubject, SendContent, Verdict
from mediarepo.scanners.scanner import ScannerError
from mediarepo.services.scanning.managed_scanner import ManagedScanner, ScanOutcome
from mediarepo.services.scanning.verdicts import TOO_LARGE, Verdicts, is_current, is_unwanted

_RETRY_AFTER_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanGate:
    """Asks all scanners about new content, each at its time; `on_queued` wakes who works on the queue."""

    scanners: Sequence[ManagedScanner]
    table: ScanTable
    verdicts: Verdicts
    on_queued: Callable[[], None]

    def holds_back(self, scan_class: ScanClass) -> bool:
        """Return whether content of a class may not be passed on before it is stored."""
        return any(
            scan_class in one.config.classes and one.config.when is not ScanTime.AFTERWARDS for one in self.scanners
        )

    async def admit(self, media: NewMedia, sha256: bytes, size_bytes: int, send: SendContent | None) -> bool:
        """Let content be published as media, hidden if need be; False when that takes its bytes and there are none.

        Raises ForbiddenError when a scanner has found something, and UnavailableError when there is no verdict and the
        configuration refuses content then. Media of other servers are stored in any case, and hidden by their content's
        hash: else they would be fetched again and again.
        """
        subject = ScanSubject(sha256, size_bytes, media.content_type, _class_of(media))
        asked = [one for one in self.scanners if one.covers(subject)]
        if not asked:
            return True
        known = await self.table.known(sha256, [one.name for one in asked])
        open_ones = [one for one in asked if not self._is_decided(one, subject, media, known.get(one.name))]
        blocking = [one for one in open_ones if one.config.when is ScanTime.BLOCK and not one.is_too_large(subject)]
        if blocking and send is None:
            return False
        for scanner in open_ones:
            if scanner in blocking and send is not None:
                await self._scan_now(scanner, subject, media, send)
            elif subject.size_bytes > scanner.config.max_bytes:
                await self._refuse_if_unwanted(scanner, subject, media, ScanResult(Verdict.UNSCANNABLE, "", TOO_LARGE))
            else:
                await self._queue(scanner, subject, media)
        return True

    def _is_decided(
        self, scanner: ManagedScanner, subject: ScanSubject, media: NewMedia, known: KnownResult | None
    ) -> bool:
        """Apply a remembered result, if it is good enough."""
        if known is None or not is_current(scanner, known):
            return False
        scanner.metrics.on_outcome(ScanOutcome.REMEMBERED)
        if is_unwanted(scanner, known.result) and not known.lifted:
            _check(scanner, subject, media)
        return True

    async def _refuse_if_unwanted(
        self, scanner: ManagedScanner, subject: ScanSubject, media: NewMedia, result: ScanResult
    ) -> None:
        if await self.verdicts.settle(scanner, subject, result):
            _check(scanner, subject, media)

    async def _scan_now(
        self, scanner: ManagedScanner, subject: ScanSubject, media: NewMedia, send: SendContent
    ) -> None:
        try:
            result = await scanner.scan_now(subject, send)
        except ScannerError as exc:
            await self._without_verdict(scanner, subject, media, exc)
        else:
            await self._refuse_if_unwanted(scanner, subject, media, result)

    async def _queue(self, scanner: ManagedScanner, subject: ScanSubject, media: NewMedia) -> None:
        hold = scanner.config.when is ScanTime.HOLD
        if not scanner.is_up or not await self._enqueue(scanner, subject, media, hold=hold):
            await self._without_verdict(scanner, subject, media, None)

    async def _enqueue(self, scanner: ManagedScanner, subject: ScanSubject, media: NewMedia, *, hold: bool) -> bool:
        limit = scanner.config.queue_limit
        queued = await self.table.enqueue(scanner.name, subject, limit=limit, hold=media.mxc if hold else None)
        self.on_queued()
        return queued

    async def _without_verdict(
        self, scanner: ManagedScanner, subject: ScanSubject, media: NewMedia, cause: ScannerError | None
    ) -> None:
        """Do what the configuration wants while a scanner is down; content waits for it, if there is room."""
        policy = scanner.when_down(subject.scan_class)
        afterwards = scanner.config.when is ScanTime.AFTERWARDS
        if policy is WhenDown.CLOSED:
            raise _unavailable() from cause
        hold = policy is WhenDown.HOLD and not afterwards
        queued = await self._enqueue(scanner, subject, media, hold=hold)
        if hold and not queued:
            raise _unavailable() from cause
        if not hold:
            scanner.metrics.on_outcome(ScanOutcome.LET_THROUGH)


def _check(scanner: ManagedScanner, subject: ScanSubject, media: NewMedia) -> None:
    """Refuse unwanted content, unless it is stored all the same and hidden by its hash."""
    if media.remote or scanner.config.when is ScanTime.AFTERWARDS:
        return
    if scanner.config.when is ScanTime.HOLD and subject.scan_class is not ScanClass.PREVIEWS:
        return
    raise ForbiddenError("the content scanner refuses this file")


def _unavailable() -> UnavailableError:
    return UnavailableError("files cannot be scanned just now; try again", retry_after_s=_RETRY_AFTER_S)


def _class_of(media: NewMedia) -> ScanClass:
    if media.remote:
        return ScanClass.REMOTE
    return ScanClass.LOCAL if media.preview_expires_ts is None else ScanClass.PREVIEWS
