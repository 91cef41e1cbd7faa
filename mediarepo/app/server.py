"""The HTTP server process: builds the application, listens, and stops in order."""

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from mediarepo.app.build_services import build_readiness
from mediarepo.app.reloading import Reloading
from mediarepo.app.repository import Repository, open_repository
from mediarepo.config.server import Address
from mediarepo.config.settings import Settings
from mediarepo.model.concurrency import Shutdown
from mediarepo.services.authorization import AuditTrail
from mediarepo.services.leases import JobReports
from mediarepo.telemetry.loop_lag import LoopLagWatchdog
from mediarepo.web import keys
from mediarepo.web.admin.api.endpoint_table import add_api_routes
from mediarepo.web.draining import InFlight
from mediarepo.web.middleware import add_headers, answer_in_matrix, observe
from mediarepo.web.proxies import TrustedProxies
from mediarepo.web.routes import add_federation_routes, add_matrix_routes, add_operator_routes, add_synapse_admin_routes
from mediarepo.web.server import serving


def make_web_app(repository: Repository, shutdown: Shutdown, *, matrix: bool, operators: bool) -> web.Application:
    """Build an aiohttp application with the client endpoints, the operator endpoints, or both."""
    foundation = repository.foundation
    app = web.Application(middlewares=[observe, answer_in_matrix])
    app.on_response_prepare.append(add_headers)
    app[keys.SETTINGS] = foundation.settings
    app[keys.IN_FLIGHT] = InFlight(shutdown.drain_over, foundation.in_use)
    app[keys.METRICS] = foundation.metrics
    app[keys.READINESS] = build_readiness(foundation, shutdown)
    app[keys.TENANTS] = repository.tenants
    app[keys.PROXIES] = TrustedProxies(foundation.settings.listen)
    app[keys.IDENTITY] = repository.identity
    app[keys.UPLOADS] = repository.uploads
    app[keys.PENDING] = repository.pending
    app[keys.PREVIEWS] = repository.previews
    app[keys.QUOTAS] = repository.quotas
    app[keys.RATES] = repository.rates
    app[keys.USAGE] = repository.administration.usage
    app[keys.RETENTION] = repository.administration.retention
    app[keys.TASKS] = repository.administration.tasks
    app[keys.AUDIT] = AuditTrail(log=repository.administration.audit)
    app[keys.JOBS] = JobReports(runs=repository.administration.jobs)
    app[keys.FAILED_ITEMS] = repository.administration.failed_items
    app[keys.DOWNLOADS] = repository.downloads
    app[keys.REMOTE_MEDIA] = repository.remote_media
    app[keys.ADMINS] = repository.administration.admins
    app[keys.AUTHORIZATION] = repository.administration.authorization
    app[keys.RECORDS] = repository.administration.records
    app[keys.QUARANTINE] = repository.administration.quarantine
    app[keys.DELETION] = repository.administration.deletion
    app[keys.VERIFICATION] = repository.verification
    app[keys.THUMBNAILS] = repository.thumbnails
    if matrix:
        add_matrix_routes(app)
        add_federation_routes(app)
        add_synapse_admin_routes(app)
        add_api_routes(app)
    if operators:
        add_operator_routes(app)
    return app


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A repository and the addresses it listens on."""

    repository: Repository
    addresses: list[Address]


@asynccontextmanager
async def serving_repository(settings: Settings, shutdown: Shutdown) -> AsyncIterator[Server]:
    """Open everything and listen until the block ends."""
    listen = settings.listen
    async with AsyncExitStack() as stack:
        repository = await stack.enter_async_context(open_repository(settings))
        await stack.enter_async_context(LoopLagWatchdog(repository.foundation.metrics.loop_lag.observe))
        apart = listen.metrics_address is not None
        if listen.metrics_address is not None:
            operators = make_web_app(repository, shutdown, matrix=False, operators=True)
            await stack.enter_async_context(serving(operators, [listen.metrics_address], listen))
        app = make_web_app(repository, shutdown, matrix=True, operators=not apart)
        gc.collect()
        gc.freeze()  # 150,000 objects stay as long as the process: looking through them all holds up the loop
        addresses = await stack.enter_async_context(serving(app, listen.addresses, listen))
        await _report(repository, addresses)
        yield Server(repository=repository, addresses=addresses)


async def _report(repository: Repository, addresses: list[Address]) -> None:
    """Log where we listen, what goes where, and what does not answer yet."""
    foundation = repository.foundation
    readiness = build_readiness(foundation, Shutdown())
    log.info("listening", addresses=[str(address) for address in addresses])
    for name, store in foundation.settings.stores.items():
        log.info("store", store=name, endpoint=store.endpoint_url, bucket=store.bucket, prefix=store.prefix)
    await readiness.problems()  # what does not answer is logged where that is found


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc: malloc.h
_LARGE_BYTES = 128 * 1024


def give_memory_back() -> None:
    """Make glibc return large freed buffers to the system at once, instead of keeping ever larger ones."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


async def serve(settings: Settings, config: Path, shutdown: Shutdown, reload: asyncio.Event) -> None:
    """Serve until told to stop.

    Then not ready during the shutdown delay, then without new connections until requests are done.
    """
    settings = settings.model_copy(
        deep=True
    )  # defaults are shared by all settings, and a reload changes values in place
    give_memory_back()
    async with serving_repository(settings, shutdown) as server:
        reloading = asyncio.create_task(Reloading(repository=server.repository, path=config).run(reload))
        try:
            await shutdown.stop.wait()
        finally:
            reloading.cancel()
            await asyncio.wait([reloading])
        log.info("stopping", delay_ms=settings.listen.shutdown_delay_ms)
        await shutdown.delay(settings.listen.shutdown_delay_ms)
        log.info("draining", timeout_ms=settings.listen.shutdown_timeout_ms)
    log.info("stopped")
