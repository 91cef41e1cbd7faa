"""Checks content scanners: whether they answer, and find what every scanner finds."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from mediarepo.config.scanners import ScannerConfig
from mediarepo.model.byte_stream import Sink
from mediarepo.model.findings import Finding, Subject
from mediarepo.model.scans import ScanClass, ScanSubject, Verdict
from mediarepo.scanners.open_scanner import open_scanner
from mediarepo.scanners.scanner import ScannerError

_EICAR = b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X"[::-1]
"""The test file that every scanner takes for malware; turned round, so that none finds it here."""


async def examine_scanner(name: str, config: ScannerConfig) -> AsyncIterator[Finding]:
    """Ask a scanner for its version, and have it scan a harmless and a harmful file."""
    subject = Subject(f"scanner {name}")
    scanner = open_scanner(config)
    try:
        async with asyncio.timeout(config.timeout_ms / 1000):
            signatures = await scanner.check()
            yield subject.ok("answer", signatures or "it answers")
            verdicts = []
            for content in (b"harmless", _EICAR):
                subject_of = ScanSubject(hashlib.sha256(content).digest(), len(content), "text/plain", ScanClass.LOCAL)
                verdicts.append((await scanner.scan(subject_of, _Sender(content))).verdict)
    except (ScannerError, TimeoutError) as exc:
        advice = "start it, or correct scanners.NAME.address; what happens meanwhile: scanners.NAME.when_down"
        yield subject.problem("answer", str(exc) or f"no answer within {config.timeout_ms} ms", advice)
        return
    if verdicts[0] is not Verdict.CLEAN:
        yield subject.problem("harmless file", f"is {verdicts[0]}", "see the scanner's own log")
    elif verdicts[1] is not Verdict.INFECTED:
        yield subject.warning("EICAR test file", "is not found", "load signatures that know it (freshclam)")
    else:
        yield subject.ok("EICAR test file", "is found")


class _Sender:
    """Sends bytes from memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __call__(self, sink: Sink) -> None:
        await sink.write(self._content)
