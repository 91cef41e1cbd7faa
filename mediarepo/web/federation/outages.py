"""Outages as other servers may see them.

A Synapse that gets a 5xx or 429 from one of these endpoints backs off from the whole homeserver, for minutes up to a
week; so an outage of ours is waited out, and in the end called "not found", logged and counted as what it is.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from mediarepo.errors import LimitExceededError, MatrixError, NotFoundError, UnavailableError
from mediarepo.web.keys import METRICS, SETTINGS

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_PAUSE_S = 0.5


def never_shunned(handler: Handler) -> Handler:
    """Wrap a handler so that other servers never see a 5xx or 429 from it, M_NOT_YET_UPLOADED aside."""

    async def patient(request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        until = loop.time() + request.app[SETTINGS].federation.outage_wait_ms / 1000
        while True:
            try:
                return await handler(request)
            except (UnavailableError, LimitExceededError) as exc:
                if loop.time() + _PAUSE_S > until:
                    raise _disguised(request, exc) from exc
                await asyncio.sleep(_PAUSE_S)
            except (MatrixError, web.HTTPException, ConnectionError):
                raise
            except Exception as exc:
                log.exception("unexpected_error", endpoint=handler.__name__)
                raise _disguised(request, exc) from exc

    return patient


def _disguised(request: web.Request, cause: Exception) -> NotFoundError:
    log.error("outage_told_as_not_found", reason=str(cause)[:300])
    request.app[METRICS].outages_told_as_not_found.inc()
    return NotFoundError("media not found")
