"""Works on the queues of content scanners, in every process; the database has the queue, so any process may die."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import structlog

from mediarepo.config.scanners import WhenDown
from mediarepo.db.scans import STORED_AFTER_MS, ScanTable
from mediarepo.errors import MatrixError
from mediarepo.model.byte_stream import Sink
from mediarepo.model.media import Blob
from mediarepo.model.scans import QueuedScan, ScanClass, ScanResult, SendContent, Verdict
from mediarepo.scanners.scanner import ScannerError
from mediarepo.services.scanning.managed_scanner import ManagedScanner, ScanOutcome
from mediarepo.services.scanning.verdicts import Verdicts, is_current
from mediarepo.services.stores import Stores

log = structlog.get_logger(__name__)

_POLL_S = 1.0
_CLAIM_SLACK_MS = 30_000
_MAX_ATTEMPTS = 5
"""A file on which a scanner fails so often while it answers otherwise counts as one that it cannot scan."""
_FIRST_DELAY_MS = 500
_MAX_DELAY_MS = 300_000
_AWAITED_MS = 24 * 3_600_000
"""How long content is waited for whose upload has not ended yet."""


def content_sender(stores: Stores, blob: Blob) -> SendContent:
    """Return what sends stored content straight from S3."""

    async def send(sink: Sink) -> None:
        async with stores.named(blob.store).open(blob.object_key, known_bytes=blob.size_bytes) as stored:
            await stored.send_to(sink)

    return send


@dataclass(slots=True)
class _Line:
    """One scanner's share of the work in this process."""

    scanner: ManagedScanner
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    running: set["asyncio.Task[None]"] = field(default_factory=set)
    next_check: float = 0.0


class QueueWorker:
    """Checks the scanners, and has queued content scanned, until it is left."""

    def __init__(
        self, scanners: Sequence[ManagedScanner], *, table: ScanTable, verdicts: Verdicts, stores: Stores
    ) -> None:
        self._lines = [_Line(scanner) for scanner in scanners]
        self._table = table
        self._verdicts = verdicts
        self._stores = stores
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def in_use(self) -> int:
        """How many contents are being scanned."""
        return sum(len(line.running) for line in self._lines)

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._work(line), name=f"scanner {line.scanner.name}") for line in self._lines
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._tasks, *(task for line in self._lines for task in line.running)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake_soon(self) -> None:
        """Look into the queues once what was just queued can be stored."""
        asyncio.get_running_loop().call_later(STORED_AFTER_MS / 1000, self._wake)

    def _wake(self) -> None:
        for line in self._lines:
            line.woken.set()

    async def _work(self, line: _Line) -> None:
        while True:
            line.woken.clear()
            try:
                await self._check_if_due(line)
                await self._claim(line)
            except MatrixError as exc:
                log.info("scan_queue_unavailable", scanner=line.scanner.name, reason=exc.message)
            except Exception:  # logged; the queue is looked at again
                log.exception("scan_queue_failed", scanner=line.scanner.name)
            try:
                async with asyncio.timeout(_POLL_S):
                    await line.woken.wait()
            except TimeoutError:
                continue

    async def _check_if_due(self, line: _Line) -> None:
        """Ask now and then whether the scanner is there; while it is not, show what the configuration lets through."""
        scanner = line.scanner
        if time.monotonic() < line.next_check:
            return
        line.next_check = time.monotonic() + scanner.config.check_interval_ms / 1000
        if await scanner.check():
            return
        let_through = [one for one in ScanClass if scanner.when_down(one) is WhenDown.OPEN]
        if released := await self._table.release_waiting(scanner.name, let_through):
            log.warning("scan_holds_released", scanner=scanner.name, media=released, reason="the scanner is down")

    async def _claim(self, line: _Line) -> None:
        scanner = line.scanner
        room = scanner.config.concurrency - len(line.running)
        if not scanner.is_up or room <= 0:
            return
        for queued in await self._table.claim(scanner.name, room, scanner.config.timeout_ms + _CLAIM_SLACK_MS):
            task = asyncio.create_task(self._scan(scanner, queued), name=f"scan {scanner.name}")
            line.running.add(task)
            task.add_done_callback(line.running.discard)
            task.add_done_callback(lambda _: line.woken.set())

    async def _scan(self, scanner: ManagedScanner, queued: QueuedScan) -> None:
        """Have one content scanned; a failure is its own, and it is tried again later."""
        try:
            await self._settle(scanner, queued)
        except MatrixError as exc:
            log.info("scan_postponed", scanner=scanner.name, reason=exc.message)
            await self._postpone(scanner, queued)
        except Exception:  # logged; the row becomes due again by itself
            log.exception("scan_crashed", scanner=scanner.name, sha256=queued.subject.sha256.hex())

    async def _settle(self, scanner: ManagedScanner, queued: QueuedScan) -> None:
        subject = queued.subject
        known = (await self._table.known(subject.sha256, [scanner.name])).get(scanner.name)
        if known is not None and is_current(scanner, known):
            scanner.metrics.on_outcome(ScanOutcome.REMEMBERED)
            await self._verdicts.settle(scanner, subject, known.result)
            return
        blob = await self._table.content(subject.sha256)
        if blob is None:
            await self._await_content(scanner, queued)
            return
        try:
            result = await scanner.scan(subject, content_sender(self._stores, blob))
        except ScannerError as exc:
            if not scanner.is_up or queued.attempts < _MAX_ATTEMPTS:
                log.info("scan_postponed", scanner=scanner.name, reason=str(exc))
                await self._postpone(scanner, queued)
                return
            log.warning("scan_given_up", scanner=scanner.name, sha256=subject.sha256.hex(), reason=str(exc))
            result = ScanResult(Verdict.UNSCANNABLE, scanner.signatures or "", "no verdict in several attempts")
        await self._verdicts.settle(scanner, subject, result)

    async def _await_content(self, scanner: ManagedScanner, queued: QueuedScan) -> None:
        """Wait for content that is still being stored, but not for ever: its upload may have failed."""
        age_ms = int(time.time() * 1000) - queued.queued_ts
        if age_ms > _AWAITED_MS:
            await self._table.settle(scanner.name, queued.subject.sha256, None)
        else:
            delay_ms = min(max(age_ms // 4, _FIRST_DELAY_MS), _MAX_DELAY_MS)
            await self._table.postpone(scanner.name, queued.subject.sha256, delay_ms, uncounted=1)

    async def _postpone(self, scanner: ManagedScanner, queued: QueuedScan) -> None:
        delay_ms = min(_FIRST_DELAY_MS << min(queued.attempts - 1, 16), _MAX_DELAY_MS)
        try:
            await self._table.postpone(scanner.name, queued.subject.sha256, delay_ms)
        except MatrixError as exc:
            log.info("scan_queue_unavailable", scanner=scanner.name, reason=exc.message)  # it becomes due by itself
