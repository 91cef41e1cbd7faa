"""What follows from a verdict: content is quarantined by its hash, or shown; the result is remembered."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mediarepo.config.scanners import WhenUnscannable
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.scans import ScanTable
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.scans import KnownResult, ScanResult, ScanSubject, Verdict, owner_of
from mediarepo.services.scanning.managed_scanner import ManagedScanner

log = structlog.get_logger(__name__)

TOO_LARGE = "larger than what is scanned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Acts on verdicts; what an admin has shown again stays visible until something else is found in it."""

    table: ScanTable
    quarantine: QuarantineTable
    server_names: Callable[[], tuple[str, ...]]

    async def settle(self, scanner: ManagedScanner, subject: ScanSubject, result: ScanResult) -> bool:
        """Quarantine content or lift that, and release what was held for it; returns whether it is quarantined.

        The quarantine comes first: nothing is visible in between.
        """
        before = (await self.table.known(subject.sha256, [scanner.name])).get(scanner.name)
        unwanted = is_unwanted(scanner, result)
        lifted = before is not None and before.lifted and before.result.detail == result.detail
        if unwanted and not lifted:
            await self._hide(scanner, subject, result)
        elif not unwanted and before is not None and before.result.verdict is not Verdict.CLEAN:
            await self._show(scanner, subject)
        await self.table.settle(scanner.name, subject.sha256, result, hidden=unwanted)
        return unwanted and not lifted

    async def _hide(self, scanner: ManagedScanner, subject: ScanSubject, result: ScanResult) -> None:
        act = self._act(scanner, "quarantine_hash", result.detail)
        owner = owner_of(scanner.name)
        if await self.quarantine.hide_hashes([subject.sha256], act, scopes=[OPERATOR], owner=owner):
            log.warning(
                "scan_found",
                scanner=scanner.name,
                verdict=result.verdict,
                detail=result.detail,
                sha256=subject.sha256.hex(),
                size_bytes=subject.size_bytes,
            )

    async def _show(self, scanner: ManagedScanner, subject: ScanSubject) -> None:
        act = self._act(scanner, "unquarantine_hash", "no longer found")
        if await self.quarantine.show_owned_hashes([subject.sha256], act, owner_of(scanner.name)):
            log.info("scan_found_nothing_any_more", scanner=scanner.name, sha256=subject.sha256.hex())

    def _act(self, scanner: ManagedScanner, action: str, reason: str | None) -> AdminAction:
        by = owner_of(scanner.name)
        return AdminAction(by=by, owner=OPERATOR, action=action, at=self.server_names(), reason=reason)


def is_unwanted(scanner: ManagedScanner, result: ScanResult) -> bool:
    """Return whether content with this result is kept from everybody."""
    closed = scanner.config.when_unscannable is WhenUnscannable.CLOSED
    return result.verdict is Verdict.INFECTED or (result.verdict is Verdict.UNSCANNABLE and closed)


def is_current(scanner: ManagedScanner, known: KnownResult | None) -> bool:
    """Return whether a remembered result spares another scan: of these signatures, or what was found before them."""
    if known is None:
        return False
    if known.result.verdict is Verdict.INFECTED and not known.lifted:
        return True
    return scanner.signatures is None or known.result.signatures == scanner.signatures
