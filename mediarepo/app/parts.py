"""The parts, joined once, by hand."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from mediarepo.config.settings import Settings
from mediarepo.db.access import AccessTable
from mediarepo.db.connections import Database
from mediarepo.db.deleting import Deleting
from mediarepo.db.media import MediaTable
from mediarepo.db.outbox import Outbox
from mediarepo.db.publishing import Publishing
from mediarepo.db.sweeping import Intents, Sweeping
from mediarepo.db.thumbnails import ThumbnailTable
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Tenants
from mediarepo.homeserver.whoami import Whoami
from mediarepo.images.memory import SourceBudget
from mediarepo.images.pool import WorkerPool
from mediarepo.jobs import Job, Jobs
from mediarepo.model.single_flight import SingleFlight
from mediarepo.services.access_times import AccessTimes
from mediarepo.services.downloads import Downloads
from mediarepo.services.large_uploads import LargeUploads
from mediarepo.services.markers import Markers
from mediarepo.services.memory import MemoryBudget
from mediarepo.services.outbox import OutboxWorker
from mediarepo.services.rendering import Rendering
from mediarepo.services.stores import Stores
from mediarepo.services.sweeps import Sweeps
from mediarepo.services.thumbnails import Thumbnails
from mediarepo.services.uploads import Uploads
from mediarepo.storage.store import Store
from mediarepo.telemetry.metrics import Metrics

_HEARTBEATS_PER_GRACE = 20
_CLAIM_INTERVAL_MS = 30_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """All that a running mediarepo does, apart from listening."""

    foundation: Foundation
    tenants: Tenants
    identity: Identity
    memory: MemoryBudget
    uploads: Uploads
    downloads: Downloads
    thumbnails: Thumbnails
    sweeps: Sweeps
    access_times: AccessTimes


@asynccontextmanager
async def open_foundation(settings: Settings) -> AsyncIterator[Foundation]:
    """Open database and stores; neither needs to be up yet."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        stores: Mapping[str, Store] = {
            name: await stack.enter_async_context(Store(name, config, on_request=partial(metrics.s3_request, name)))
            for name, config in settings.stores.items()
        }
        yield Foundation(
            settings=settings,
            metrics=metrics,
            database=await stack.enter_async_context(Database(settings.database)),
            stores=Stores(by_name=stores, store_for=settings.store_for),
        )


def join_sweeps(foundation: Foundation) -> Sweeps:
    """Join what removes leftovers."""
    database, stores = foundation.database, foundation.stores
    sweeping = Sweeping(database)
    return Sweeps(
        config=foundation.settings.sweep,
        stores=stores,
        sweeping=sweeping,
        intents=Intents(database),
        markers=Markers(sweeping=sweeping),
        outbox=OutboxWorker(
            outbox=Outbox(database), stores=stores, on_backlog=foundation.metrics.deletions_waiting.set
        ),
        on_stopped=lambda name: foundation.metrics.sweeps_stopped.labels(name).inc(),
    )


def join_uploads(foundation: Foundation, memory: MemoryBudget) -> Uploads:
    """Join what takes media in."""
    settings, database, stores = foundation.settings, foundation.database, foundation.stores
    publishing = Publishing(database, settings.sweep.grace_ms)
    large = LargeUploads(
        publishing=publishing,
        intents=Intents(database),
        stores=stores,
        now_ms=now_ms,
        heartbeat_ms=settings.sweep.grace_ms // _HEARTBEATS_PER_GRACE,
    )
    return Uploads(
        config=settings.uploads, memory=memory, publishing=publishing, stores=stores, large=large, now_ms=now_ms
    )


def join_downloads(foundation: Foundation, tenants: Tenants, access_times: AccessTimes) -> Downloads:
    """Join what gives media out."""
    return Downloads(
        media=MediaTable(foundation.database),
        stores=foundation.stores,
        tenants=tenants,
        markers=Markers(sweeping=Sweeping(foundation.database)),
        access_times=access_times,
        on_missing=foundation.metrics.objects_missing.inc,
    )


async def join_thumbnails(foundation: Foundation, downloads: Downloads, stack: AsyncExitStack) -> Thumbnails:
    """Join what makes and gives out thumbnails; its workers end with the stack."""
    settings, database = foundation.settings, foundation.database
    table = ThumbnailTable(database, settings.sweep.grace_ms)
    rendering = Rendering(
        config=settings.thumbnails,
        pool=await stack.enter_async_context(WorkerPool(settings.thumbnails)),
        sources=SourceBudget(settings.thumbnails),
        table=table,
        stores=foundation.stores,
        downloads=downloads,
        flights=await stack.enter_async_context(SingleFlight[None]()),
        now_ms=now_ms,
        on_job=lambda outcome: foundation.metrics.thumbnails.labels(outcome).inc(),
    )
    return Thumbnails(
        config=settings.thumbnails,
        media=downloads.media,
        table=table,
        deleting=Deleting(database),
        downloads=downloads,
        rendering=rendering,
    )


@asynccontextmanager
async def open_repository(settings: Settings) -> AsyncIterator[Repository]:
    """Join everything, and run the jobs, until left."""
    async with AsyncExitStack() as stack:
        foundation = await stack.enter_async_context(open_foundation(settings))
        tenants, memory = Tenants(settings.homeservers), MemoryBudget(settings.uploads)
        access_times = AccessTimes(settings.access_times, AccessTable(foundation.database), now_ms)
        foundation.metrics.upload_memory_bytes.set_function(lambda: memory.used)
        downloads = join_downloads(foundation, tenants, access_times)
        whoami = await stack.enter_async_context(Whoami(settings.identity))
        repository = Repository(
            foundation=foundation,
            tenants=tenants,
            identity=await stack.enter_async_context(Identity(settings.identity, whoami, elapsed_ms)),
            memory=memory,
            uploads=join_uploads(foundation, memory),
            downloads=downloads,
            thumbnails=await join_thumbnails(foundation, downloads, stack),
            sweeps=join_sweeps(foundation),
            access_times=access_times,
        )
        await _claim_prefixes(repository)
        await stack.enter_async_context(Jobs(_jobs(repository)))
        yield repository


async def _claim_prefixes(repository: Repository) -> None:
    """Mark the prefixes as ours, so that an object missing there can be believed."""
    stores = repository.foundation.stores.by_name.values()
    await repository.sweeps.markers.claim_all(stores)


def _jobs(repository: Repository) -> list[Job]:
    settings = repository.foundation.settings
    jobs = [
        Job(name="markers", interval_ms=_CLAIM_INTERVAL_MS, run=partial(_claim_prefixes, repository)),
        Job(name="outbox", interval_ms=settings.sweep.outbox_interval_ms, run=repository.sweeps.outbox.drain),
        Job(
            name="access_times",
            interval_ms=settings.access_times.flush_interval_ms,
            run=repository.access_times.flush,
            last_time=True,
        ),
    ]
    if settings.sweep.enabled:
        jobs.append(Job(name="sweep", interval_ms=settings.sweep.interval_ms, run=repository.sweeps.sweep))
    return jobs
