"""The whole repository as one object, opened and closed in order."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from mediarepo.app.build_access import open_access
from mediarepo.app.build_admin import Administration, build_administration
from mediarepo.app.build_remote import FederationParts, open_federation, open_previews
from mediarepo.app.build_services import (
    build_pending_uploads,
    build_quotas,
    build_readiness,
    build_sweeps,
    build_thumbnails,
    build_uploads,
)
from mediarepo.app.foundation import Foundation, elapsed_ms, open_foundation
from mediarepo.app.scheduled_jobs import regular_jobs
from mediarepo.config.settings import Settings
from mediarepo.db.limits import RateTable
from mediarepo.db.tasks import Leases
from mediarepo.errors import MatrixError
from mediarepo.federation.request_auth import RequestVerifier
from mediarepo.homeserver.client import HomeserverClient
from mediarepo.homeserver.identity import Identity, IdentityOutcome, TokenFailureLimiter, Whoami
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.jobs import ScheduledJob, Scheduler
from mediarepo.model.concurrency import Shutdown
from mediarepo.services.access import MediaAccess
from mediarepo.services.access_times import AccessTimes
from mediarepo.services.leases import Presence
from mediarepo.services.limits import Quotas, RateLimiter
from mediarepo.services.previews import Previews
from mediarepo.services.remote_media import RemoteMedia
from mediarepo.services.sweeps import Sweeps
from mediarepo.services.thumbnails import Thumbnails
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.services.upload_waiters import UploadWaiters
from mediarepo.services.uploads import PendingUploads, Uploads

if TYPE_CHECKING:
    from mediarepo.app.build_scanning import Scanning

_CLAIM_INTERVAL_MS = 30_000
_DATABASE_CHECK_INTERVAL_MS = 5_000
_STORES_CHECK_INTERVAL_MS = 30_000
_LOOK_TIMEOUT_S = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """Everything that a running mediarepo does, apart from listening."""

    foundation: Foundation
    tenants: Homeservers
    identity: Identity
    memory: MemoryBudget
    uploads: Uploads
    quotas: Quotas
    rates: RateLimiter
    pending: PendingUploads
    access: MediaAccess
    upload_waiters: UploadWaiters
    remote_media: RemoteMedia
    federating: FederationParts
    verification: RequestVerifier
    administration: Administration
    thumbnails: Thumbnails
    previews: Previews
    sweeps: Sweeps
    access_times: AccessTimes
    scanning: "Scanning | None" = None


@asynccontextmanager
async def open_repository(settings: Settings) -> AsyncIterator[Repository]:
    """Build all services and run the scheduled jobs until the block ends."""
    async with AsyncExitStack() as stack:
        scanning, foundation = await _open_scanning(stack, await stack.enter_async_context(open_foundation(settings)))
        tenants, memory = Homeservers(lambda: settings.homeservers), MemoryBudget(settings.uploads)
        quotas = build_quotas(foundation)
        federating = await stack.enter_async_context(open_federation(foundation))
        parts = await open_access(stack, foundation, tenants, memory, federating.media)
        calls = await stack.enter_async_context(HomeserverClient(settings.identity, foundation.outages))
        identity = await stack.enter_async_context(_build_identity(foundation, calls))
        thumbnails = await build_thumbnails(foundation, parts.access, parts.contents, stack)
        repository = Repository(
            foundation=foundation,
            tenants=tenants,
            identity=identity,
            administration=build_administration(foundation, tenants, identity, calls, parts.hashing),
            memory=memory,
            uploads=build_uploads(foundation, memory),
            quotas=quotas,
            rates=RateLimiter(settings.rate_limits, RateTable(foundation.database), elapsed_ms),
            pending=build_pending_uploads(foundation, quotas, parts.read_through),
            access=parts.access,
            upload_waiters=parts.upload_waiters,
            remote_media=parts.remote_media,
            federating=federating,
            verification=_verification(settings, federating, tenants),
            thumbnails=thumbnails,
            previews=await open_previews(stack, foundation, memory, thumbnails.rendering),
            sweeps=build_sweeps(foundation),
            access_times=parts.access_times,
            scanning=scanning,
        )
        _show_admission(repository, federating, calls)
        await _look_around(repository)
        async with _presence(foundation), Scheduler(jobs_of(repository), foundation.in_use):
            yield repository


async def _open_scanning(stack: AsyncExitStack, foundation: Foundation) -> "tuple[Scanning | None, Foundation]":
    if not foundation.settings.scanners:
        return None, foundation
    from mediarepo.app.build_scanning import open_scanning  # noqa: PLC0415 - only where scanners are configured

    return await open_scanning(stack, foundation)


def _presence(foundation: Foundation) -> Presence:
    """Let others see in the database that this process is alive."""
    return Presence(leases=Leases(foundation.database), name=f"{os.uname().nodename} {os.getpid()} {uuid4().hex[:8]}")


def _show_admission(repository: Repository, federating: FederationParts, calls: HomeserverClient) -> None:
    """Let the metrics show how busy everything is that clients have shares of."""
    for work, places in {
        "key_fetches": federating.server_keys.fetches,
        "remote_media": repository.remote_media.places,
        "previews": repository.previews.places,
        "thumbnails": repository.thumbnails.rendering.places,
        "homeserver": calls.places,
    }.items():
        repository.foundation.metrics.show_admission(work, places)
        repository.foundation.in_use.show(f"{work}_places", partial(getattr, places, "in_use"))
        repository.foundation.in_use.show(f"{work}_places_waiting", partial(getattr, places, "waiting"))
    in_use, previews, memory = repository.foundation.in_use, repository.previews, repository.memory
    metrics, budget_bytes = repository.foundation.metrics, repository.foundation.settings.uploads.memory_budget_bytes
    metrics.upload_memory_bytes.set_function(lambda: memory.used)
    metrics.show_memory("uploads", budget_bytes, lambda: memory.used)
    in_use.show("upload_memory_bytes", lambda: memory.used)
    in_use.show("upload_memory_waiting", lambda: memory.waiting)
    in_use.show("preview_flights", lambda: previews.flights.in_use)
    in_use.show("previews_waiting", lambda: previews.waiters.in_use)
    in_use.show("page_processes", lambda: previews.making.reading.busy)
    in_use.show("page_processes_waiting", lambda: previews.making.reading.waiting)
    in_use.show("token_flights", lambda: repository.identity.flights.in_use)
    in_use.show("key_flights", lambda: federating.server_keys.flights.in_use)


def _verification(settings: Settings, federating: FederationParts, tenants: Homeservers) -> RequestVerifier:
    return RequestVerifier(
        settings.federation, federating.server_keys, lambda name: tenants.by_server_name(name) is not None
    )


async def _claim_prefixes(repository: Repository) -> None:
    """Mark the prefixes as ours, so that an object missing there can be believed; store nothing in others."""
    stores = repository.foundation.stores
    stores.close(await repository.sweeps.markers.claim_all(stores.by_name.values()))


async def _look_around(repository: Repository) -> None:
    """See before anything is done whose the buckets are, and whether the database is as new; if not now, then later."""
    await _claim_prefixes(repository)
    try:
        async with asyncio.timeout(_LOOK_TIMEOUT_S):
            await repository.foundation.recency.look_at_all()
    except (MatrixError, TimeoutError) as exc:
        log.warning("recency_check_failed", reason=str(exc) or "it takes long")


def jobs_of(repository: Repository) -> list[ScheduledJob]:
    """Return this process's scheduled jobs."""
    claiming = ScheduledJob(name="markers", interval_ms=_CLAIM_INTERVAL_MS, run=partial(_claim_prefixes, repository))
    foundation, administration = repository.foundation, repository.administration
    regular = regular_jobs(
        foundation,
        administration,
        repository.sweeps,
        repository.pending,
        repository.access_times,
        repository.previews.tidy,
        repository.scanning,
    )
    share_ms = foundation.settings.rate_limits.share_interval_ms
    sharing = ScheduledJob(name="rates", interval_ms=share_ms, run=repository.rates.share)
    readiness = build_readiness(foundation, Shutdown())
    return [
        claiming,
        sharing,
        ScheduledJob(name="database", interval_ms=_DATABASE_CHECK_INTERVAL_MS, run=readiness.check_database),
        ScheduledJob(name="stores", interval_ms=_STORES_CHECK_INTERVAL_MS, run=readiness.check_stores),
        *regular,
    ]


def _build_identity(foundation: Foundation, calls: HomeserverClient) -> Identity:
    foreign_users = foundation.metrics.foreign_users
    whoami = Whoami(calls, on_foreign_user=lambda server_name: foreign_users.labels(server_name).inc())
    limits = foundation.settings.rate_limits
    failures = TokenFailureLimiter(lambda: limits.failing_tokens, elapsed_ms)
    checks = foundation.metrics.identity_checks
    on_check = {outcome: checks.labels(outcome).inc for outcome in IdentityOutcome}
    return Identity(foundation.settings.identity, whoami, elapsed_ms, failures, on_check=lambda one: on_check[one]())
