"""Builds the content scanners and what works for them; imported only where scanners are configured."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.config.scanners import ScannerConfig
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.scans import ScanTable
from mediarepo.db.unverified_hashes import UnverifiedHashTable
from mediarepo.scanners.open_scanner import open_scanner
from mediarepo.services.scanning.gate import ScanGate
from mediarepo.services.scanning.managed_scanner import ManagedScanner, ScanMetrics
from mediarepo.services.scanning.queue_worker import QueueWorker
from mediarepo.services.scanning.rounds import ScanRounds
from mediarepo.services.scanning.verdicts import Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanning:
    """The scanners, and the rounds over what is stored."""

    scanners: list[ManagedScanner]
    table: ScanTable
    rounds: ScanRounds
    worker: QueueWorker

    async def show(self, foundation: Foundation) -> None:
        """Turn what waits and what is held into figures."""
        for scanner in self.scanners:
            figures = await self.table.figures(scanner.name)
            foundation.metrics.scans_waiting.labels(scanner.name).set(figures.waiting)
            foundation.metrics.scan_holds.labels(scanner.name).set(figures.held)


async def open_scanning(stack: AsyncExitStack, foundation: Foundation) -> tuple[Scanning, Foundation]:
    """Open the scanners, and let all uploads pass them; the work on their queues ends with the stack."""
    settings, database = foundation.settings, foundation.database
    scanners = build_scanners(foundation, settings.scanners)
    table = ScanTable(database)
    verdicts = Verdicts(
        table=table,
        quarantine=QuarantineTable(database),
        server_names=lambda: tuple(one.server_name for one in settings.homeservers),
    )
    worker = QueueWorker(scanners, table=table, verdicts=verdicts, stores=foundation.stores)
    foundation.in_use.show("scans", lambda: worker.in_use)
    await stack.enter_async_context(worker)
    rounds = ScanRounds(
        table=table,
        verdicts=verdicts,
        hashes=UnverifiedHashTable(database),
        stores=foundation.stores,
        now_ms=now_ms,
    )
    gate = ScanGate(scanners=scanners, table=table, verdicts=verdicts, on_queued=worker.wake_soon)
    scanning = Scanning(scanners=scanners, table=table, rounds=rounds, worker=worker)
    return scanning, replace(foundation, gate=gate)


def build_scanners(foundation: Foundation, configs: Mapping[str, ScannerConfig]) -> list[ManagedScanner]:
    """Build the scanners of a configuration."""
    metrics = foundation.metrics
    return [
        ManagedScanner(
            name=name,
            config=config,
            client=open_scanner(config),
            metrics=ScanMetrics(
                on_outcome=partial(_count, foundation, name),
                on_seconds=metrics.scan_seconds.labels(name).observe,
                on_up=metrics.scanner_up.labels(name).set,
                on_outage=partial(foundation.outages.note, "scanner", name),
            ),
        )
        for name, config in configs.items()
    ]


def _count(foundation: Foundation, name: str, outcome: str) -> None:
    foundation.metrics.scans.labels(name, outcome).inc()
