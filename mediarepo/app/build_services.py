"""Builds the services for uploads, downloads, thumbnails and housekeeping."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.config.media import ThumbnailsConfig
from mediarepo.db.deletion import Outbox
from mediarepo.db.journal import JournalTable
from mediarepo.db.limits import QuotaTable
from mediarepo.db.media import MediaTable, ThumbnailTable
from mediarepo.db.publishing import PendingTable, PublishTable
from mediarepo.db.rebuild import RebuildTable
from mediarepo.db.sweep import MissingObjects, ObjectInventory, SweepTable, UploadIntents
from mediarepo.db.unverified_hashes import UnverifiedHashTable
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from mediarepo.model.concurrency import Admission, InUse, Shutdown, SingleFlight
from mediarepo.model.import_source import ReadThroughSource
from mediarepo.model.media import StoreClass
from mediarepo.model.tasks import Lease
from mediarepo.services.access import MediaAccess
from mediarepo.services.deletion import OutboxWorker
from mediarepo.services.fsck import Fsck, Repairs
from mediarepo.services.journal import Journal
from mediarepo.services.leases import LeaseHolder, lease_of
from mediarepo.services.limits import Quotas
from mediarepo.services.quarantine import HashLearner
from mediarepo.services.readiness import Readiness
from mediarepo.services.rebuild import Rebuilder
from mediarepo.services.stored_content import StoredContent
from mediarepo.services.stores import BucketMarkers
from mediarepo.services.sweeps import Sweeps
from mediarepo.services.thumbnails import ThumbnailRenderer, Thumbnails
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.services.uploads import LargeUploads, PendingUploads, Uploads

_HEARTBEATS_PER_GRACE = 20


def build_sweeps(foundation: Foundation) -> Sweeps:
    """Build the garbage collection."""
    database, stores = foundation.database, foundation.stores
    sweep_table = SweepTable(database)
    return Sweeps(
        config=foundation.settings.sweep,
        stores=stores,
        sweep_table=sweep_table,
        upload_intents=UploadIntents(database),
        markers=BucketMarkers(sweep_table=sweep_table, missing_objects=MissingObjects(database)),
        recency=foundation.recency,
        outbox=OutboxWorker(
            outbox=Outbox(database),
            stores=stores,
            on_backlog=foundation.metrics.deletions_waiting.set,
            recency=foundation.recency,
        ),
        isolation=foundation.isolation,
        on_stopped=lambda name: foundation.metrics.sweeps_stopped.labels(name).inc(),
    )


def build_journal(foundation: Foundation) -> Journal:
    """Build the journal writer."""
    return Journal(
        config=foundation.settings.journal,
        table=JournalTable(foundation.database),
        sweep_table=SweepTable(foundation.database),
        stores=foundation.stores,
        recency=foundation.recency,
    )


def build_uploads(
    foundation: Foundation,
    memory: MemoryBudget,
    store_class: StoreClass = StoreClass.LOCAL,
    *,
    max_bytes: Callable[[], int] | None = None,
) -> Uploads:
    """Build the upload service; `max_bytes` replaces the limit of users' uploads."""
    settings, database, stores = foundation.settings, foundation.database, foundation.stores
    publishing = PublishTable(database, settings.sweep.grace_ms)
    large = LargeUploads(
        publishing=publishing,
        upload_intents=UploadIntents(database),
        stores=stores,
        now_ms=now_ms,
        heartbeat_ms=settings.sweep.grace_ms // _HEARTBEATS_PER_GRACE,
        store_class=store_class,
        in_use=foundation.in_use,
        gate=foundation.gate,
    )
    return Uploads(
        config=settings.uploads,
        max_bytes=max_bytes or (lambda: settings.uploads.max_bytes),
        memory=memory,
        publishing=publishing,
        stores=stores,
        large=large,
        now_ms=now_ms,
        store_class=store_class,
        gate=foundation.gate,
    )


def rendering_places(config: ThumbnailsConfig) -> Admission:
    """Return how many render jobs may hold memory: enough that each worker finds the next one ready."""
    places = 2 * config.worker_count
    wait_s = config.queue_timeout_ms / 1000
    return Admission("wait for thumbnails", places=places, share=places, max_waiting=config.queue_limit, wait_s=wait_s)


async def build_thumbnails(
    foundation: Foundation, access: MediaAccess, contents: StoredContent, stack: AsyncExitStack
) -> Thumbnails:
    """Build the thumbnail service; its workers stop with the stack."""
    settings, database = foundation.settings, foundation.database
    table = ThumbnailTable(database, settings.sweep.grace_ms)
    rendering = ThumbnailRenderer(
        config=settings.thumbnails,
        pool=await stack.enter_async_context(WorkerPool(settings.thumbnails, foundation.sandbox_policy())),
        sources=SourceBudget(settings.thumbnails),
        table=table,
        stores=foundation.stores,
        upload_intents=UploadIntents(database),
        contents=contents,
        remote_fetches=await stack.enter_async_context(SingleFlight[None]()),
        places=rendering_places(settings.thumbnails),
        now_ms=now_ms,
        on_job=lambda outcome: foundation.metrics.thumbnails.labels(outcome).inc(),
        on_failure=lambda reason: foundation.metrics.thumbnail_failures.labels(reason).inc(),
    )
    _show_rendering(foundation.in_use, rendering)
    sources = rendering.sources
    foundation.metrics.show_memory("thumbnail_sources", settings.thumbnails.memory_budget_bytes, lambda: sources.in_use)
    return Thumbnails(
        config=settings.thumbnails,
        table=table,
        access=access,
        rendering=rendering,
    )


def _show_rendering(in_use: InUse, rendering: ThumbnailRenderer) -> None:
    in_use.show("thumbnail_flights", lambda: rendering.remote_fetches.in_use)
    in_use.show("picture_bytes", lambda: rendering.sources.in_use)
    in_use.show("picture_bytes_waiting", lambda: rendering.sources.waiting)
    in_use.show("image_processes", lambda: rendering.pool.busy)
    in_use.show("image_processes_waiting", lambda: rendering.pool.waiting)


def build_readiness(foundation: Foundation, shutdown: Shutdown) -> Readiness:
    """Build the readiness checks."""
    return Readiness(
        database=foundation.database,
        stores=foundation.stores,
        failed=foundation.isolation.failed,
        recency=foundation.recency,
        stopping=shutdown.stop,
        outages=foundation.outages,
    )


def build_hash_learner(foundation: Foundation) -> HashLearner:
    """Build the service that computes unverified hashes."""
    table = UnverifiedHashTable(foundation.database)
    hashing = HashLearner(table=table, stores=foundation.stores, isolation=foundation.isolation)
    foundation.in_use.show("hashing_flights", lambda: hashing.flights.in_use)
    return hashing


def build_quotas(foundation: Foundation) -> Quotas:
    """Build the quotas."""
    settings = foundation.settings
    return Quotas(settings.quotas, settings.uploads, QuotaTable(foundation.database))


def build_pending_uploads(
    foundation: Foundation, quotas: Quotas, read_through: ReadThroughSource | None = None
) -> PendingUploads:
    """Build asynchronous uploads: media ids created before their content."""
    config, database = foundation.settings.uploads, foundation.database
    lease_holder = foundation.lease_holder(config.lease_ms)
    table = PendingTable(database)
    return PendingUploads(
        config=config,
        table=table,
        lease_holder=lease_holder,
        quotas=quotas,
        isolation=foundation.isolation,
        read_through=read_through,
    )


def build_repairs(foundation: Foundation) -> Repairs:
    """Build fsck and its repairs."""
    config, database = foundation.settings.sweep, foundation.database
    sweep_table = SweepTable(database)
    return Repairs(
        config=config,
        fsck=Fsck(
            inventory=ObjectInventory(database),
            sweep_table=sweep_table,
            recency=foundation.recency,
            grace_ms=config.grace_ms,
        ),
        sweep_table=sweep_table,
        media=MediaTable(database),
        markers=BucketMarkers(sweep_table=sweep_table, missing_objects=MissingObjects(database)),
    )


_LEASE_MS = 60_000
JOURNAL_LEASE = lease_of("journal")
"""Held by whoever writes the journal; nobody does while it is read."""


def journal_lease(foundation: Foundation) -> LeaseHolder:
    """Return the lease that keeps other processes from writing the journal."""
    return foundation.lease_holder(_LEASE_MS)


def build_rebuilder(foundation: Foundation, lease: Lease) -> Rebuilder:
    """Build the rebuild of a lost database."""
    database = foundation.database
    sweep_table = SweepTable(database)
    return Rebuilder(
        table=RebuildTable(database, lease),
        publishing=PublishTable(database, foundation.settings.sweep.grace_ms),
        intents=UploadIntents(database),
        sweep_table=sweep_table,
        markers=BucketMarkers(sweep_table=sweep_table, missing_objects=MissingObjects(database)),
        fsck=build_repairs(foundation).fsck,
        stores=foundation.stores,
    )
