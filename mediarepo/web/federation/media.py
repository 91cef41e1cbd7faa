"""Federation endpoints for media (server-server API, "Content Repository").

A Synapse that gets a 5xx or 429 from one of these endpoints backs off from the whole homeserver, for minutes up to a
week; so an outage of ours is waited out, and in the end called "not found", logged and counted as what it is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog
from aiohttp import web

from mediarepo.errors import (
    ContentLostError,
    LimitExceededError,
    MatrixError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from mediarepo.federation.multipart import mixed_head, mixed_redirect, mixed_tail, new_boundary
from mediarepo.model.media import Media
from mediarepo.model.mxc import Mxc, parse_media_id
from mediarepo.model.requester import authenticate_client
from mediarepo.services.downloads import DownloadOptions
from mediarepo.web.auth import find_tenant
from mediarepo.web.client.download import cache_headers
from mediarepo.web.client.thumbnail import thumbnail_disposition
from mediarepo.web.http.disposition import content_disposition
from mediarepo.web.http.headers import is_not_modified, media_etag, thumbnail_etag
from mediarepo.web.http.responses import Frame, StoredBody, send_bytes
from mediarepo.web.keys import DOWNLOADS, METRICS, RECORD, SETTINGS, TENANTS, THUMBNAILS, VERIFICATION
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
            except Exception as exc:
                log.exception("unexpected_error", endpoint=handler.__name__)
                raise _disguised(request, exc) from exc

    return patient


def _disguised(request: web.Request, cause: Exception) -> NotFoundError:
    log.error("outage_answered_as_not_found", reason=str(cause)[:300])
    request.app[METRICS].outages_answered_as_not_found.inc()
    return NotFoundError("media not found")


_MAX_DISPOSITION_CHARS = 900
"""The head should arrive in one piece, of at most about 1400 bytes: Synapse loses what it has to put together."""
_SHORT_NAME_CHARS = 60


@outages_as_not_found
async def download(request: web.Request) -> web.StreamResponse:
    """Send media of ours to another server."""
    mxc, options = await _asked(request)
    downloads = request.app[DOWNLOADS]
    media = await downloads.find(mxc, options)
    etag = media_etag(media)
    disposition = content_disposition(media.content_type, media.upload_name)
    if len(disposition) > _MAX_DISPOSITION_CHARS and media.upload_name is not None:
        disposition = content_disposition(media.content_type, media.upload_name[-_SHORT_NAME_CHARS:])
    if request.app[SETTINGS].federation.redirect_downloads and request.method == "GET":
        return await _send_location(request, media, disposition)
    size_bytes = media.blob.size_bytes if media.blob is not None else 0
    return await _send(
        request, media, etag, media.content_type, disposition, partial(downloads.open, media), size_bytes
    )


async def _send_location(request: web.Request, media: Media, disposition: str) -> web.Response:
    """Say where S3 gives the file out itself; the address is good for moments, so nobody may keep the answer."""
    lifetime_s = request.app[SETTINGS].federation.redirect_lifetime_ms // 1000
    url = await request.app[DOWNLOADS].presign(media, lifetime_s=lifetime_s, content_disposition=disposition)
    boundary = new_boundary()
    headers = {"Content-Type": f"multipart/mixed; boundary={boundary}", "Cache-Control": "no-store"}
    return web.Response(body=mixed_redirect(boundary, url), headers=headers)


@outages_as_not_found
async def thumbnail(request: web.Request) -> web.StreamResponse:
    """Send a thumbnail of media of ours to another server: the same bytes that clients get."""
    mxc, options = await _asked(request)
    try:
        return await _send_thumbnail(request, mxc, options)
    except ContentLostError:
        return await _send_thumbnail(request, mxc, options)


async def _send_thumbnail(request: web.Request, mxc: Mxc, options: DownloadOptions) -> web.StreamResponse:
    thumbnails = request.app[THUMBNAILS]
    found = await thumbnails.find(mxc, thumbnail_spec(Query(request)), options)
    return await _send(
        request,
        found.media,
        thumbnail_etag(found.media, found.thumbnail.spec),
        found.thumbnail.content_type,
        thumbnail_disposition(found.thumbnail.content_type),
        partial(thumbnails.open, found),
        found.thumbnail.size_bytes,
    )


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


async def _send(
    request: web.Request,
    media: Media,
    etag: str,
    content_type: str,
    disposition: str,
    open_bytes: Callable[[], AbstractAsyncContextManager[StoredBody]],
    size_bytes: int,
) -> web.StreamResponse:
    """Send the two parts: metadata, of which there are none yet, and the file."""
    config = request.app[SETTINGS].downloads
    headers = cache_headers(etag, media, config.max_age_s)
    if is_not_modified(request.headers, etag=etag, modified_ts=media.created_ts):
        return web.Response(status=304, headers=headers)
    boundary = new_boundary()
    frame = Frame(mixed_head(boundary, content_type, disposition), mixed_tail(boundary))
    headers["Content-Type"] = f"multipart/mixed; boundary={boundary}"
    headers["Content-Disposition"] = disposition
    if request.method == "HEAD":
        headers["Content-Length"] = str(len(frame.head) + size_bytes + len(frame.tail))
        return web.Response(headers=headers)
    return await send_bytes(
        request,
        open_bytes(),
        size_bytes=size_bytes,
        status=200,
        headers=headers,
        idle_timeout_ms=config.idle_timeout_ms,
        frame=frame,
    )
