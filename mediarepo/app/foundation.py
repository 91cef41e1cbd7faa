"""Settings, metrics, database, stores and clocks, which everything else is built on."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from mediarepo.config.settings import Settings
from mediarepo.db.database import Database
from mediarepo.db.failed_items import FailedItems
from mediarepo.sandbox.confinement import Confinement
from mediarepo.sandbox.process import SandboxPolicy
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.stores import Stores
from mediarepo.storage.store import Store
from mediarepo.telemetry.metrics import Metrics


def now_ms() -> int:
    """Read the wall clock, in ms since 1970."""
    return time.time_ns() // 1_000_000


def elapsed_ms() -> int:
    """Read a clock that never goes back, in ms."""
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What keeps rows and bytes, opened."""

    settings: Settings
    metrics: Metrics
    database: Database
    stores: Stores
    isolation: BatchIsolation

    def sandbox_policy(self) -> SandboxPolicy:
        """Return what must stand before a process may read untrusted bytes; the metrics show what does."""

        def show(confinement: Confinement) -> None:
            self.metrics.sandbox.labels("seccomp").set(confinement.seccomp)
            self.metrics.sandbox.labels("landlock").set(confinement.landlock)

        return SandboxPolicy(enforcement=self.settings.sandbox.enforcement, on_started=show)


@asynccontextmanager
async def open_foundation(settings: Settings) -> AsyncIterator[Foundation]:
    """Open database and stores; neither needs to be up yet."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        stores: Mapping[str, Store] = {
            name: await stack.enter_async_context(Store(name, config, on_request=partial(metrics.s3_request, name)))
            for name, config in settings.stores.items()
        }
        database = await stack.enter_async_context(Database(settings.database))
        opened = Stores(by_name=stores, store_for=settings.store_for)
        yield Foundation(
            settings=settings,
            metrics=metrics,
            database=database,
            stores=opened,
            isolation=BatchIsolation(
                failed=FailedItems(database),
                stores=opened,
                on_failure=lambda queue: metrics.item_failures.labels(queue).inc(),
            ),
        )
