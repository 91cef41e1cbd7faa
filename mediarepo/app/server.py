"""The HTTP server process: builds the application, listens, and stops in order."""

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from mediarepo.app.build_services import build_readiness
from mediarepo.app.config_reload import ConfigReloader
from mediarepo.app.repository import Repository, open_repository
from mediarepo.app.supervisor import Supervisor, Worker
from mediarepo.config.server import Address
from mediarepo.config.settings import Settings
from mediarepo.db.import_ledger import ImportRuns
from mediarepo.db.pictures import ContentFactsTable
from mediarepo.db.tasks import BacklogTable
from mediarepo.model.concurrency import Shutdown
from mediarepo.model.request_record import RequestIds
from mediarepo.services.authorization import AuditTrail
from mediarepo.services.leases import JobReports
from mediarepo.services.media_info import MediaInfoReader
from mediarepo.services.media_viewer import MediaViewer
from mediarepo.telemetry.logs import LineWriter
from mediarepo.telemetry.loop_lag import LoopLagWatchdog
from mediarepo.telemetry.worker_metrics import MetricsPage, WorkersMetricsPage
from mediarepo.web import keys
from mediarepo.web.admin.api.endpoint_table import add_api_routes
from mediarepo.web.console.pages import add_console
from mediarepo.web.in_flight import InFlight
from mediarepo.web.listening import address_of, bind_all
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
    app[keys.METRICS_PAGE] = MetricsPage(foundation.metrics)
    app[keys.READINESS] = build_readiness(foundation, shutdown)
    app[keys.TENANTS] = repository.tenants
    app[keys.PROXIES] = TrustedProxies(foundation.settings.listen)
    app[keys.REQUEST_IDS] = RequestIds()
    app[keys.ACCESS_LOG] = LineWriter(foundation.settings.log)
    app[keys.IDENTITY] = repository.identity
    app[keys.UPLOADS] = repository.uploads
    app[keys.PENDING] = repository.pending
    app[keys.PREVIEWS] = repository.previews
    app[keys.QUOTAS] = repository.quotas
    app[keys.RATES] = repository.rates
    app[keys.ACCESS] = repository.access
    app[keys.VERIFICATION] = repository.verification
    app[keys.THUMBNAILS] = repository.thumbnails
    app[keys.MEDIA_INFO] = MediaInfoReader(
        access=repository.access,
        rendering=repository.thumbnails.rendering,
        table=ContentFactsTable(foundation.database),
    )
    _add_administration(app, repository)
    if matrix:
        for add_routes in (add_matrix_routes, add_federation_routes, add_synapse_admin_routes, add_api_routes):
            add_routes(app)
        if foundation.settings.console.enabled:
            add_console(app, foundation.settings.console, repository.tenants, app[keys.PROXIES])
    if operators:
        add_operator_routes(app)
    return app


def _add_administration(app: web.Application, repository: Repository) -> None:
    """Add the services behind the admin APIs."""
    administration = repository.administration
    app[keys.ADMINS] = administration.admins
    app[keys.AUTHORIZATION] = administration.authorization
    app[keys.RECORDS] = administration.records
    app[keys.QUARANTINE] = administration.quarantine
    app[keys.DELETION] = administration.deletion
    app[keys.USAGE] = administration.usage
    app[keys.RETENTION] = administration.retention
    app[keys.TASKS] = administration.tasks
    app[keys.AUDIT] = AuditTrail(log=administration.audit)
    app[keys.INVALIDATION] = repository.foundation.invalidation
    database = repository.foundation.database
    app[keys.JOBS] = JobReports(runs=administration.jobs, backlog=BacklogTable(database), imports=ImportRuns(database))
    app[keys.FAILED_ITEMS] = administration.failed_items
    app[keys.PICTURES] = MediaViewer(
        thumbnails=repository.thumbnails,
        access=repository.access,
        authorization=administration.authorization,
        audit=administration.audit,
    )


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A repository and the addresses it listens on."""

    repository: Repository
    addresses: list[Address]


@asynccontextmanager
async def open_server(settings: Settings, shutdown: Shutdown, worker: Worker | None = None) -> AsyncIterator[Server]:
    """Open everything and listen, alone or as one of several workers."""
    listen, shared = settings.listen, worker is not None
    async with AsyncExitStack() as stack:
        repository = await stack.enter_async_context(open_repository(settings))
        metrics = repository.foundation.metrics
        await stack.enter_async_context(LoopLagWatchdog(metrics.loop_lag.observe))
        listeners = bind_all(listen) if worker is None else worker.listeners
        page = MetricsPage(metrics)
        if worker is not None:
            page = WorkersMetricsPage(metrics, worker.number, worker.count, worker.server)
            await stack.enter_async_context(page.answering())
        apart = bool(listeners.metrics)
        if apart:
            operators = make_web_app(repository, shutdown, matrix=False, operators=True)
            operators[keys.METRICS_PAGE] = page
            await stack.enter_async_context(serving(operators, listeners.metrics, listen, shared=shared))
        app = make_web_app(repository, shutdown, matrix=True, operators=not apart)
        app[keys.METRICS_PAGE] = page
        gc.collect()
        gc.freeze()  # 150,000 objects stay as long as the process: looking through them all holds up the loop
        addresses = [address_of(listener) for listener in listeners.clients]
        await stack.enter_async_context(serving(app, listeners.clients, listen, shared=shared))
        if worker is not None:
            worker.ready()
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


def supervise(settings: Settings, count: int, serve_as: Callable[[Worker], int]) -> int:
    """Serve by so many processes until told to stop; gives the exit status. ListenError when an address is taken."""
    listeners = bind_all(settings.listen)
    gc.collect()
    gc.freeze()  # what the workers share with this process stays shared while nobody counts references to it
    return Supervisor(count, listeners, serve_as).run()


async def serve(
    settings: Settings, config: Path, shutdown: Shutdown, reload: asyncio.Event, worker: Worker | None = None
) -> None:
    """Serve until told to stop.

    Then not ready during the shutdown delay, then without new connections until requests are done.
    """
    settings = settings.model_copy(
        deep=True
    )  # defaults are shared by all settings, and a reload changes values in place
    if worker is not None:
        settings.thumbnails.share_cores_among(worker.count)
    give_memory_back()
    async with open_server(settings, shutdown, worker) as server:
        reloading = asyncio.create_task(ConfigReloader(repository=server.repository, path=config).run(reload))
        try:
            await shutdown.stop.wait()
        finally:
            reloading.cancel()
            await asyncio.wait([reloading])
        log.info("stopping", delay_ms=settings.listen.shutdown_delay_ms)
        await shutdown.delay(settings.listen.shutdown_delay_ms)
        log.info("draining", timeout_ms=settings.listen.shutdown_timeout_ms)
    log.info("stopped")
