"""Federation endpoints for media (server-server API, "Content Repository").

A Synapse that gets a 5xx or 429 from one of these endpoints backs off from the whole homeserver, for minutes up to a
week; so an outage of ours is waited out, and in the end called "not found", logged and counted as what it is.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from mediarepo.errors import LimitExceededError, MatrixError, NotFoundError, UnauthorizedError, UnavailableError
from mediarepo.federation.multipart import mixed_redirect, new_boundary
from mediarepo.model.media import FoundMedia
from mediarepo.model.mxc import Mxc, parse_media_id
from mediarepo.model.requester import authenticate_client
from mediarepo.services.access_policy import DownloadOptions
from mediarepo.web.auth import find_tenant
from mediarepo.web.keys import ACCESS, METRICS, RECORD, SETTINGS, TENANTS, THUMBNAILS, VERIFICATION
from mediarepo.web.media_response import media_disposition, send_media
from mediarepo.web.params import Query, note_mxc, path_segments, thumbnail_spec
from mediarepo.web.proxies import origin_form
from mediarepo.web.rate_limits import limit_server

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_PAUSE_S = 0.5


def outages_as_not_found(handler: Handler) -> Handler:
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
            except Exception as exc:  # logged, and answered as 404: other servers never see a failure of ours
                log.exception("unexpected_error", endpoint=handler.__name__)
                raise _disguised(request, exc) from exc

    return patient


def _disguised(request: web.Request, cause: Exception) -> NotFoundError:
    log.error("outage_answered_as_not_found", reason=str(cause)[:300])
    request.app[METRICS].outages_answered_as_not_found.inc()
    return NotFoundError("media not found")


@outages_as_not_found
async def download(request: web.Request) -> web.StreamResponse:
    """Send media of ours to another server."""
    mxc, options = await _asked(request)
    access = request.app[ACCESS]
    if request.app[SETTINGS].federation.redirect_downloads and request.method == "GET":
        return await _send_location(request, await access.find(mxc, options))
    return await send_media(request, lambda: access.find(mxc, options), multipart=True)


async def _send_location(request: web.Request, found: FoundMedia) -> web.Response:
    """Say where S3 gives the file out itself; the address is good for moments, so nobody may keep the answer."""
    lifetime_s = request.app[SETTINGS].federation.redirect_lifetime_ms // 1000
    disposition = media_disposition(found.media, short=True)
    url = await request.app[ACCESS].presign(found, lifetime_s=lifetime_s, content_disposition=disposition)
    boundary = new_boundary()
    headers = {"Content-Type": f"multipart/mixed; boundary={boundary}", "Cache-Control": "no-store"}
    return web.Response(body=mixed_redirect(boundary, url), headers=headers)


@outages_as_not_found
async def thumbnail(request: web.Request) -> web.StreamResponse:
    """Send a thumbnail of media of ours to another server: the same bytes that clients get."""
    mxc, options = await _asked(request)
    spec = thumbnail_spec(Query(request))
    return await send_media(request, lambda: request.app[THUMBNAILS].find(mxc, spec, options), multipart=True)


async def _asked(request: web.Request) -> tuple[Mxc, DownloadOptions]:
    """Read what is asked for, by a server that has proven who it is."""
    host = find_tenant(request)
    verified = await request.app[VERIFICATION].check(
        request.headers.getall("Authorization", []),
        method=request.method,
        request_target=origin_form(request.raw_path),
        host_server_name=None if host is None else host.server_name,
    )
    tenant = request.app[TENANTS].by_server_name(verified.destination)
    if tenant is None:
        raise UnauthorizedError("the request is not for this server")
    record = request[RECORD]
    record.origin, record.homeserver = verified.origin, verified.destination
    authenticate_client(f"server {verified.origin}")
    limit_server(request, verified.origin)
    (media_id,) = path_segments(request, 1)
    wait_ms = Query(request).wait_ms(at_most_ms=request.app[SETTINGS].downloads.max_wait_ms)
    return note_mxc(Mxc(tenant.server_name, parse_media_id(media_id))), DownloadOptions(
        tenant=tenant, wait_ms=wait_ms, allow_remote=False
    )
