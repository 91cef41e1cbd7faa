"""Builds what finds media for requesters: the access pipeline, the fetching of remote media, and what both wait for."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from mediarepo.app.build_imports_exports import open_read_through
from mediarepo.app.build_services import build_hash_learner, build_uploads
from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.media import AccessTable, MediaTable
from mediarepo.db.notifications import NotificationListener
from mediarepo.db.remote_media import RemoteTable
from mediarepo.db.sweep import MissingObjects, SweepTable
from mediarepo.federation.multipart import RemoteContentClient
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.import_source import ReadThroughSource
from mediarepo.model.media import StoreClass
from mediarepo.services.access import MediaAccess, MediaCache
from mediarepo.services.access_times import AccessTimes
from mediarepo.services.quarantine import HashLearner
from mediarepo.services.remote_fetch import RemoteFetcher
from mediarepo.services.remote_media import RemoteMedia
from mediarepo.services.stored_content import StoredContent
from mediarepo.services.stores import BucketMarkers
from mediarepo.services.tee import TeeBudget
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.services.upload_waiters import UploadWaiters


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessParts:
    """The access pipeline, and what others share with it."""

    access: MediaAccess
    remote_media: RemoteMedia
    contents: StoredContent
    hashing: HashLearner
    upload_waiters: UploadWaiters
    access_times: AccessTimes
    read_through: ReadThroughSource | None


async def open_access(
    stack: AsyncExitStack,
    foundation: Foundation,
    tenants: Homeservers,
    memory: MemoryBudget,
    fetcher: RemoteContentClient,
) -> AccessParts:
    """Build the access pipeline; what it runs ends with the stack."""
    database = foundation.database
    upload_waiters = await _open_upload_waiters(stack, foundation)
    hashing = await stack.enter_async_context(build_hash_learner(foundation))
    read_through = await open_read_through(stack, foundation, memory)
    remote_media = _build_remote_media(foundation, tenants, upload_waiters, memory, fetcher)
    await stack.enter_async_context(remote_media)
    contents = _build_stored_content(foundation)
    access_times = AccessTimes(foundation.settings.access_times, AccessTable(database), foundation.isolation, now_ms)
    access = MediaAccess(
        media=_build_media_cache(foundation),
        contents=contents,
        tenants=tenants,
        access_times=access_times,
        upload_waiters=upload_waiters,
        hashing=hashing,
        remote=remote_media,
        read_through=read_through,
    )
    return AccessParts(
        access=access,
        remote_media=remote_media,
        contents=contents,
        hashing=hashing,
        upload_waiters=upload_waiters,
        access_times=access_times,
        read_through=read_through,
    )


def _build_media_cache(foundation: Foundation) -> MediaCache:
    """Build what keeps rows of media for a moment."""
    lookups = foundation.metrics.row_cache_lookups
    return MediaCache(
        MediaTable(foundation.database),
        foundation.cache_lease,
        limit=foundation.settings.downloads.max_cached_rows,
        on_hit=lookups.labels("hit").inc,
        on_miss=lookups.labels("miss").inc,
    )


async def _open_upload_waiters(stack: AsyncExitStack, foundation: Foundation) -> UploadWaiters:
    """Let what is stored by any process wake who waits for it here."""
    settings = foundation.settings
    upload_waiters = UploadWaiters(settings.downloads.max_waiting)
    await stack.enter_async_context(
        NotificationListener(
            settings.database, foundation.cache_lease, on_news=upload_waiters.news, on_reset=upload_waiters.reset
        )
    )
    foundation.in_use.show("announced_media_waiting", lambda: upload_waiters.waiters.in_use)
    return upload_waiters


def _build_stored_content(foundation: Foundation) -> StoredContent:
    """Build what opens stored objects."""
    database = foundation.database
    return StoredContent(
        media=MediaTable(database),
        deletion_table=DeletionTable(database),
        stores=foundation.stores,
        markers=BucketMarkers(sweep_table=SweepTable(database), missing_objects=MissingObjects(database)),
        cache_lease=foundation.cache_lease,
        on_missing=foundation.metrics.objects_missing.inc,
    )


def _build_remote_media(
    foundation: Foundation,
    tenants: Homeservers,
    upload_waiters: UploadWaiters,
    memory: MemoryBudget,
    fetcher: RemoteContentClient,
) -> RemoteMedia:
    """Build the service that fetches other servers' media."""
    settings, database = foundation.settings, foundation.database
    config, table = settings.remote_media, RemoteTable(database)
    budget = TeeBudget(config.tee_memory_bytes)
    fetching = RemoteFetcher(
        config=config,
        fetcher=fetcher,
        uploads=build_uploads(foundation, memory, StoreClass.REMOTE, max_bytes=lambda: config.max_bytes),
        table=table,
        tenants=tenants,
        budget=budget,
        now_ms=now_ms,
        gate=foundation.gate,
    )
    remote_media = RemoteMedia(
        config,
        media=MediaTable(database),
        tenants=tenants,
        upload_waiters=upload_waiters,
        fetching=fetching,
        table=table,
        lease_holder=foundation.lease_holder(config.lease_ms),
        on_fetch=lambda outcome: foundation.metrics.remote_fetches.labels(outcome).inc(),
    )
    foundation.in_use.show("tee_memory_bytes", lambda: budget.in_use)
    foundation.metrics.show_memory("remote_media", config.tee_memory_bytes, lambda: budget.in_use)
    foundation.in_use.show("remote_fetches", lambda: remote_media.flights)
    foundation.in_use.show("remote_media_waiting", lambda: remote_media.waiters.in_use)
    return remote_media
