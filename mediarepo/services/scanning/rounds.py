"""Rounds over all stored content: what imports brought, and everything again when a scanner's signatures change."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from mediarepo.db.scans import ScanTable, StoredScan
from mediarepo.db.unverified_hashes import UnverifiedHashTable
from mediarepo.errors import MatrixError
from mediarepo.model.byte_stream import Sink
from mediarepo.model.scans import ScanResult, ScanRound, ScanSubject, SendContent, Verdict
from mediarepo.scanners.scanner import ScannerError
from mediarepo.services.scanning.managed_scanner import ManagedScanner
from mediarepo.services.scanning.queue_worker import content_sender
from mediarepo.services.scanning.verdicts import TOO_LARGE, Verdicts
from mediarepo.services.stores import Stores

log = structlog.get_logger(__name__)

_PAGE = 200
_SETTLED_MS = 60_000
"""Younger content waits in the queue, or its import is just being committed."""
_RUN_S = 25.0
_RESULTS_KEPT_MS = 30 * 24 * 3_600_000
_FORGET_BATCH = 10_000


class _HashedSink:
    """Passes bytes on, and hashes them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.sha256 = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        self.sha256.update(data)
        await self._sink.write(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRounds:
    """Goes on with a scanner's round, for a while each time; one process at a time does."""

    table: ScanTable
    verdicts: Verdicts
    hashes: UnverifiedHashTable
    stores: Stores
    now_ms: Callable[[], int]

    async def go_on(self, scanner: ManagedScanner) -> dict[str, int]:
        """Scan stored content that has no result of the present signatures, as fast as the configuration allows."""
        await self.table.queue_held(scanner.name)
        await self.table.forget_old(_RESULTS_KEPT_MS, _FORGET_BATCH)
        figures = {"looked_at": 0, "scanned": 0, "failed": 0}
        if not scanner.config.rescan or not await scanner.check():
            return figures
        scan_round = await self._round(scanner)
        until = time.monotonic() + _RUN_S
        while time.monotonic() < until:
            page = await self.table.page(scanner.name, scan_round, _PAGE, _SETTLED_MS)
            for one in page:
                figures["looked_at"] += 1
                if not one.done and time.monotonic() < until:
                    figures["scanned" if await self._scan(scanner, one) else "failed"] += 1
                elif not one.done:
                    return figures
                if not scanner.is_up:
                    return figures
                await self.table.note_round(scanner.name, one.blob.blob_id, finished=False)
            if not page:
                await self.table.note_round(scanner.name, scan_round.after_blob_id, finished=True)
                return figures
            scan_round = await self._round(scanner)
        return figures

    async def _round(self, scanner: ManagedScanner) -> ScanRound:
        """Return the round, or begin one: the first, or the next when signatures have changed long enough ago."""
        last = await self.table.last_round(scanner.name)
        signatures = scanner.signatures or ""
        if last is not None and (
            last.signatures == signatures or self.now_ms() - last.started_ts < scanner.config.rescan_interval_ms
        ):
            return last
        await self.table.begin_round(scanner.name, signatures)
        log.info("scan_round_started", scanner=scanner.name, signatures=signatures)
        return await self._round(scanner)

    async def _scan(self, scanner: ManagedScanner, one: StoredScan) -> bool:
        """Scan one content; one that cannot be scanned now waits in the queue, so that the round goes on."""
        subject = ScanSubject(one.sha256 or b"", one.blob.size_bytes, one.content_type or "", one.scan_class)
        if not scanner.covers(subject):
            return True
        if scanner.is_too_large(subject):
            if one.sha256 is not None:
                result = ScanResult(Verdict.UNSCANNABLE, scanner.signatures or "", TOO_LARGE)
                await self.verdicts.settle(scanner, subject, result)
            return True
        try:
            await self._scan_content(scanner, subject, one)
        except (ScannerError, MatrixError) as exc:
            log.info("scan_postponed", scanner=scanner.name, blob_id=one.blob.blob_id, reason=str(exc))
            if one.sha256 is not None and scanner.is_up:
                await self.table.enqueue(scanner.name, subject, limit=scanner.config.queue_limit, hold=None)
            return False
        await asyncio.sleep(min(one.blob.size_bytes / scanner.config.rescan_bytes_per_s, _RUN_S))
        return True

    async def _scan_content(self, scanner: ManagedScanner, subject: ScanSubject, one: StoredScan) -> None:
        """Scan content; its hash is computed on the way when it was not known for certain."""
        sinks: list[_HashedSink] = []
        send = content_sender(self.stores, one.blob)
        if one.sha256 is None:
            result = await scanner.scan(subject, partial(_send_hashed, send, sinks))
            sha256 = sinks[-1].sha256.digest()
            await self.hashes.keep(one.blob, sha256)
            subject = ScanSubject(sha256, subject.size_bytes, subject.content_type, subject.scan_class)
        else:
            result = await scanner.scan(subject, send)
        await self.verdicts.settle(scanner, subject, result)


async def _send_hashed(send: SendContent, sinks: list[_HashedSink], sink: Sink) -> None:
    sinks.append(_HashedSink(sink))
    await send(sinks[-1])
