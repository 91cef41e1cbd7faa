"""Settings, metrics, database, stores and clocks, which everything else is built on."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from mediarepo.config.settings import Settings
from mediarepo.db.cache_lease import CacheLease, CacheLeaseTable
from mediarepo.db.database import Database
from mediarepo.db.failed_items import FailedItems
from mediarepo.db.journal import JournalTable
from mediarepo.db.recency import RecencyTable
from mediarepo.db.sweep import SweepTable
from mediarepo.db.tasks import Leases
from mediarepo.model.concurrency import InUse
from mediarepo.model.request_record import Stage
from mediarepo.model.requester import current_record
from mediarepo.model.scans import ContentGate
from mediarepo.sandbox.confinement import Confinement
from mediarepo.sandbox.process import SandboxPolicy
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.invalidation import Invalidation
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.recency import Recency
from mediarepo.services.stores import Stores
from mediarepo.storage.store import Store
from mediarepo.telemetry.logs import OutageLog
from mediarepo.telemetry.metrics import Metrics


def now_ms() -> int:
    """Return the wall clock, in ms since 1970."""
    return time.time_ns() // 1_000_000


def elapsed_ms() -> int:
    """Return the monotonic clock, in ms."""
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """The opened database and stores, with settings, metrics and clocks."""

    settings: Settings
    metrics: Metrics
    database: Database
    stores: Stores
    isolation: BatchIsolation
    in_use: InUse
    outages: OutageLog
    recency: Recency
    cache_lease: CacheLease
    invalidation: Invalidation
    gate: ContentGate | None = None
    """What new content must pass: scanners, if there are any."""

    def lease_holder(self, duration_ms: int) -> LeaseHolder:
        """Build a lease holder whose leases last `duration_ms` without renewal."""
        return LeaseHolder(leases=Leases(self.database), duration_ms=duration_ms, in_use=self.in_use)

    def sandbox_policy(self) -> SandboxPolicy:
        """Return the required confinement of worker processes; the metrics show the actual one."""

        def show(confinement: Confinement) -> None:
            self.metrics.sandbox.labels("seccomp").set(confinement.seccomp)
            self.metrics.sandbox.labels("landlock").set(confinement.landlock)

        return SandboxPolicy(enforcement=self.settings.sandbox.enforcement, on_started=show)


@asynccontextmanager
async def open_foundation(settings: Settings) -> AsyncIterator[Foundation]:
    """Open database and stores; neither needs to be up yet."""
    metrics, in_use = Metrics(), InUse()
    metrics.show_in_use(in_use)
    async with AsyncExitStack() as stack:
        stores: Mapping[str, Store] = {
            name: await stack.enter_async_context(Store(name, config, on_request=partial(_note_request, metrics, name)))
            for name, config in settings.stores.items()
        }
        on_wait = metrics.pool_wait("database")
        database = await stack.enter_async_context(Database(settings.database, on_wait))
        opened = Stores(by_name=stores, store_for=settings.store_for)
        _show_connections(in_use, database, opened)
        _show_pools(metrics, database, stores)
        for store in stores.values():
            refuses = metrics.store_refuses_writes.labels(store.name)
            refuses.set_function(partial(_refuses_writes, store))
        lease = CacheLease()
        foundation = Foundation(
            settings=settings,
            metrics=metrics,
            database=database,
            stores=opened,
            outages=OutageLog(now_ms=elapsed_ms),
            isolation=BatchIsolation(
                failed=FailedItems(database),
                stores=opened,
                on_failure=lambda queue: metrics.item_failures.labels(queue).inc(),
            ),
            in_use=in_use,
            recency=_build_recency(database, opened, metrics),
            cache_lease=lease,
            invalidation=Invalidation(table=CacheLeaseTable(database), lease=lease),
        )
        try:
            yield foundation
        finally:
            if database.is_known and not lease.is_kept:  # a command: what it changed holds when it has ended
                await foundation.invalidation.settle()


def _build_recency(database: Database, stores: Stores, metrics: Metrics) -> Recency:
    return Recency(
        table=RecencyTable(database),
        journal=JournalTable(database),
        sweep_table=SweepTable(database),
        stores=stores,
        now_ms=elapsed_ms,
        on_behind=lambda store, behind: metrics.database_behind.labels(store).set(behind),
    )


def _note_request(
    metrics: Metrics, store: str, operation: str, outcome: str, seconds: float, object_key: str | None
) -> None:
    """Count a request to S3, and note it in the record of the client's request that it was made for, if any."""
    metrics.s3_request(store, operation, outcome, seconds)
    record = current_record()
    if record is not None:
        record.seconds[Stage.S3] += seconds
        record.object_key = object_key or record.object_key


def _show_pools(metrics: Metrics, database: Database, stores: Mapping[str, Store]) -> None:
    size = database.config.pool_size
    metrics.show_pool("database", size, lambda: database.in_use, lambda: database.waiting)
    for store in stores.values():
        reading = store.read_connections
        reading.on_wait = metrics.pool_wait(f"s3:{store.name}")
        metrics.show_pool(
            f"s3:{store.name}", reading.limit, partial(getattr, reading, "in_use"), partial(getattr, reading, "waiting")
        )


def _refuses_writes(store: Store) -> float:
    return float(store.write_refusal is not None)


def _show_connections(in_use: InUse, database: Database, stores: Stores) -> None:
    in_use.show("database_connections", lambda: database.in_use)
    in_use.show("database_waiting", lambda: database.waiting)
    for store in stores.by_name.values():
        in_use.show("s3_requests", partial(getattr, store, "requests_under_way"))
        in_use.show("s3_read_connections", partial(getattr, store.read_connections, "in_use"))
        in_use.show("s3_write_connections", partial(getattr, store.write_connections, "in_use"))
        in_use.show("s3_read_connections_waiting", partial(getattr, store.read_connections, "waiting"))
