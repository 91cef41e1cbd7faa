"""A whole server: opened, listening, and stopped in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from mediarepo.app.joining import join_readiness
from mediarepo.app.parts import Repository, open_repository
from mediarepo.app.web import make_web_app
from mediarepo.config.listening import Address
from mediarepo.config.settings import Settings
from mediarepo.web.server import serving

log = structlog.get_logger(__name__)


@asynccontextmanager
async def serving_repository(settings: Settings) -> AsyncIterator[list[Address]]:
    """Open everything and listen; gives the addresses on which clients are answered."""
    listen = settings.listen
    async with AsyncExitStack() as stack:
        repository = await stack.enter_async_context(open_repository(settings))
        apart = listen.metrics_address is not None
        if listen.metrics_address is not None:
            operators = make_web_app(repository, matrix=False, operators=True)
            await stack.enter_async_context(serving(operators, [listen.metrics_address], listen))
        app = make_web_app(repository, matrix=True, operators=not apart)
        addresses = await stack.enter_async_context(serving(app, listen.addresses, listen))
        await _report(repository, addresses)
        yield addresses


async def _report(repository: Repository, addresses: list[Address]) -> None:
    """Log where we listen, what goes where, and what does not answer yet."""
    foundation = repository.foundation
    readiness = join_readiness(foundation)
    log.info("listening", addresses=[str(address) for address in addresses])
    for name, store in foundation.settings.stores.items():
        log.info("store", store=name, endpoint=store.endpoint_url, bucket=store.bucket, prefix=store.prefix)
    for part, reason in (await readiness.problems()).items():
        log.error("not_ready", part=part, reason=reason)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until told to stop, and then until running requests are done."""
    async with serving_repository(settings):
        await stop.wait()
        log.info("stopping")
