"""What compares bucket and database, joined by hand."""

from contextlib import AsyncExitStack

from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.config.media import ThumbnailsConfig, UploadsConfig
from mediarepo.db.deletion import Deleting, Outbox
from mediarepo.db.leases import Leases
from mediarepo.db.limits import QuotaTable
from mediarepo.db.media import AccessTable, MediaTable, ThumbnailTable
from mediarepo.db.object_inventory import Healing, Inventory
from mediarepo.db.publishing import PendingTable, Publishing
from mediarepo.db.remote_media import RemoteTable
from mediarepo.db.sweep import Intents, Sweeping
from mediarepo.db.unverified_hashes import HashingTable
from mediarepo.federation.multipart import Fetcher
from mediarepo.homeserver.tenants import Tenants
from mediarepo.images.source_memory import SourceBudget
from mediarepo.images.worker_pool import WorkerPool
from mediarepo.model.admission import Admission
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.media import StoreClass
from mediarepo.services.deletion import OutboxWorker
from mediarepo.services.downloads import AccessTimes, Arrivals, Downloads, LookBack
from mediarepo.services.fsck import Fsck, Repairs
from mediarepo.services.hash_learning import Hashing
from mediarepo.services.leases import Holding
from mediarepo.services.pending_uploads import PendingUploads
from mediarepo.services.quotas import Quotas
from mediarepo.services.readiness import Readiness
from mediarepo.services.remote_fetch import Fetching
from mediarepo.services.remote_media import RemoteMedia
from mediarepo.services.stores import Markers
from mediarepo.services.sweeps import Sweeps
from mediarepo.services.tee import TeeBudget
from mediarepo.services.thumbnails import Rendering, Thumbnails
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.services.uploads import LargeUploads, Uploads

_HEARTBEATS_PER_GRACE = 20


def join_sweeps(foundation: Foundation) -> Sweeps:
    """Join what removes leftovers."""
    database, stores = foundation.database, foundation.stores
    sweeping = Sweeping(database)
    return Sweeps(
        config=foundation.settings.sweep,
        stores=stores,
        sweeping=sweeping,
        intents=Intents(database),
        markers=Markers(sweeping=sweeping, healing=Healing(database)),
        outbox=OutboxWorker(
            outbox=Outbox(database), stores=stores, on_backlog=foundation.metrics.deletions_waiting.set
        ),
        isolation=foundation.isolation,
        on_stopped=lambda name: foundation.metrics.sweeps_stopped.labels(name).inc(),
    )


def join_uploads(
    foundation: Foundation, memory: MemoryBudget, config: UploadsConfig, store_class: StoreClass = StoreClass.LOCAL
) -> Uploads:
    """Join what takes media in, within these limits."""
    settings, database, stores = foundation.settings, foundation.database, foundation.stores
    publishing = Publishing(database, settings.sweep.grace_ms)
    large = LargeUploads(
        publishing=publishing,
        intents=Intents(database),
        stores=stores,
        now_ms=now_ms,
        heartbeat_ms=settings.sweep.grace_ms // _HEARTBEATS_PER_GRACE,
        store_class=store_class,
    )
    return Uploads(
        config=config,
        memory=memory,
        publishing=publishing,
        stores=stores,
        large=large,
        now_ms=now_ms,
        store_class=store_class,
    )


def join_downloads(
    foundation: Foundation,
    tenants: Tenants,
    access_times: AccessTimes,
    arrivals: Arrivals,
    hashing: Hashing,
    look_back: LookBack | None = None,
) -> Downloads:
    """Join what gives media out."""
    return Downloads(
        media=MediaTable(foundation.database),
        stores=foundation.stores,
        tenants=tenants,
        markers=Markers(sweeping=Sweeping(foundation.database), healing=Healing(foundation.database)),
        access_times=access_times,
        arrivals=arrivals,
        hashing=hashing,
        on_missing=foundation.metrics.objects_missing.inc,
        look_back=look_back,
    )


def rendering_places(config: ThumbnailsConfig) -> Admission:
    """Let so many jobs hold memory that every worker finds the next one ready."""
    places = 2 * config.worker_count
    wait_s = config.queue_timeout_ms / 1000
    return Admission("wait for thumbnails", places=places, share=places, max_waiting=config.queue_limit, wait_s=wait_s)


async def join_thumbnails(
    foundation: Foundation, downloads: Downloads, remote_media: RemoteMedia, stack: AsyncExitStack
) -> Thumbnails:
    """Join what makes and gives out thumbnails; its workers end with the stack."""
    settings, database = foundation.settings, foundation.database
    table = ThumbnailTable(database, settings.sweep.grace_ms)
    rendering = Rendering(
        config=settings.thumbnails,
        pool=await stack.enter_async_context(WorkerPool(settings.thumbnails, foundation.sandbox_policy())),
        sources=SourceBudget(settings.thumbnails),
        table=table,
        stores=foundation.stores,
        downloads=downloads,
        flights=await stack.enter_async_context(SingleFlight[None]()),
        places=rendering_places(settings.thumbnails),
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
        remote=remote_media,
    )


def join_readiness(foundation: Foundation) -> Readiness:
    """Join what tells whether we can serve."""
    return Readiness(database=foundation.database, stores=foundation.stores, failed=foundation.isolation.failed)


def join_hashing(foundation: Foundation) -> Hashing:
    """Join what learns hashes that nobody told us."""
    return Hashing(table=HashingTable(foundation.database), stores=foundation.stores, isolation=foundation.isolation)


def join_access_times(foundation: Foundation) -> AccessTimes:
    """Join what remembers when media were last asked for."""
    config, table = foundation.settings.access_times, AccessTable(foundation.database)
    return AccessTimes(config, table, foundation.isolation, now_ms)


def join_quotas(foundation: Foundation) -> Quotas:
    """Join what says how much users may store."""
    settings = foundation.settings
    return Quotas(settings.quotas, settings.uploads, QuotaTable(foundation.database))


def join_pending(foundation: Foundation, quotas: Quotas, look_back: LookBack | None = None) -> PendingUploads:
    """Join what gives out media ids before their content."""
    config, database = foundation.settings.uploads, foundation.database
    holding = Holding(leases=Leases(database), duration_ms=config.lease_ms)
    table = PendingTable(database)
    return PendingUploads(
        config=config,
        table=table,
        holding=holding,
        quotas=quotas,
        isolation=foundation.isolation,
        look_back=look_back,
    )


def join_remote_media(
    foundation: Foundation, downloads: Downloads, memory: MemoryBudget, fetcher: Fetcher
) -> RemoteMedia:
    """Join what brings other servers' media in."""
    settings, database = foundation.settings, foundation.database
    config, table = settings.remote_media, RemoteTable(database)
    limits = settings.uploads.model_copy(update={"max_bytes": config.max_bytes})
    fetching = Fetching(
        config=config,
        fetcher=fetcher,
        uploads=join_uploads(foundation, memory, limits, StoreClass.REMOTE),
        table=table,
        tenants=downloads.tenants,
        budget=TeeBudget(config.tee_memory_bytes),
        now_ms=now_ms,
    )
    return RemoteMedia(
        config,
        downloads=downloads,
        fetching=fetching,
        table=table,
        holding=Holding(leases=Leases(database), duration_ms=config.lease_ms),
        on_fetch=lambda outcome: foundation.metrics.fetches.labels(outcome).inc(),
    )


def join_repairs(foundation: Foundation) -> Repairs:
    """Join what checks a store and mends it."""
    config, database = foundation.settings.sweep, foundation.database
    sweeping = Sweeping(database)
    return Repairs(
        config=config,
        fsck=Fsck(inventory=Inventory(database), sweeping=sweeping, grace_ms=config.grace_ms),
        sweeping=sweeping,
        media=MediaTable(database),
        markers=Markers(sweeping=sweeping, healing=Healing(database)),
    )
