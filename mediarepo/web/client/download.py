"""GET and HEAD of media, on the authenticated and the legacy paths."""

from dataclasses import replace

from aiohttp import web

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import BadRequestError, ContentLostError, ForbiddenError, MediaHostUnknownError
from mediarepo.model.authority import Action
from mediarepo.model.media import Media
from mediarepo.services.downloads import DownloadOptions
from mediarepo.services.tee import TeeView
from mediarepo.web.auth import bearer_token, find_tenant, requester_required, tenant_required
from mediarepo.web.http.disposition import content_disposition
from mediarepo.web.http.headers import http_date, is_not_modified, media_etag, parse_range, range_applies
from mediarepo.web.http.responses import send_arriving, send_bytes
from mediarepo.web.keys import ADMINS, AUTHORIZATION, DOWNLOADS, REMOTE_MEDIA, SETTINGS, TENANTS
from mediarepo.web.params import Query, parse_media_path
from mediarepo.web.rate_limits import limit_anonymous, limit_download

_ABOUT_STORED = frozenset({"Range", "If-None-Match", "If-Modified-Since"})


async def download(request: web.Request) -> web.StreamResponse:
    """Send media to a user."""
    query, tenant = Query(request), tenant_required(request)
    limit_download(request, await requester_required(request, tenant, query))
    options = parse_download_options(request, query, tenant)
    if query.flag("admin_unsafely_bypass_quarantine", default=False):
        options = replace(options, see_hidden=await _sees_hidden(request, query, tenant))
    return await _send(request, options)


async def _sees_hidden(request: web.Request, query: Query, tenant: HomeserverConfig) -> bool:
    """Say whether an admin may see these media although they are hidden; to neighbours' admins they stay hidden."""
    try:
        admin = await request.app[ADMINS].identify(tenant, bearer_token(request, query))
    except ForbiddenError as exc:
        raise BadRequestError("Must be a server admin to bypass quarantine") from exc
    mxc, _ = parse_media_path(request)
    return request.app[AUTHORIZATION].may_with_media(admin, Action.BYPASS_QUARANTINE, mxc)


async def legacy_download(request: web.Request) -> web.StreamResponse:
    """Send media from before the freeze to anybody."""
    options = parse_download_options(request, Query(request), legacy_tenant(request), legacy=True)
    limit_anonymous(request)
    return await _send(request, options)


def parse_download_options(
    request: web.Request, query: Query, tenant: HomeserverConfig, *, legacy: bool = False
) -> DownloadOptions:
    """Read on which terms media is asked for."""
    wait_ms = query.wait_ms(at_most_ms=request.app[SETTINGS].downloads.max_wait_ms)
    allow_remote = query.flag("allow_remote", default=True)
    return DownloadOptions(tenant=tenant, legacy=legacy, wait_ms=wait_ms, allow_remote=allow_remote)


def legacy_tenant(request: web.Request) -> HomeserverConfig:
    """Find the homeserver by Host, or by the server name in the path: old links may use any host."""
    mxc, _ = parse_media_path(request)
    tenant = find_tenant(request) or request.app[TENANTS].by_server_name(mxc.server_name)
    if tenant is None:
        raise MediaHostUnknownError("no homeserver with this Host is served here")
    return tenant


async def _send(request: web.Request, options: DownloadOptions) -> web.StreamResponse:
    mxc, file_name = parse_media_path(request)
    remote = request.app[REMOTE_MEDIA]
    found = await remote.find(mxc, options, teed=_may_be_teed(request))
    if isinstance(found, TeeView):
        return await _send_teed(request, found, file_name)
    try:
        return await _send_stored(request, found, file_name)
    except ContentLostError:
        return await _send_stored(request, await remote.find_stored(mxc, options), file_name)


def _may_be_teed(request: web.Request) -> bool:
    """Whether content that is only arriving can answer: not a part of it, and no question about it."""
    return request.method == "GET" and _ABOUT_STORED.isdisjoint(request.headers)


async def _send_teed(request: web.Request, tee: TeeView, file_name: str | None) -> web.StreamResponse:
    config = request.app[SETTINGS].downloads
    headers = cache_headers(media_etag(tee.media), tee.media, config.max_age_s)
    headers |= _content_headers(tee.media, file_name)
    return await send_arriving(
        request, tee, size_bytes=tee.size_bytes, headers=headers, idle_timeout_ms=config.idle_timeout_ms
    )


def _content_headers(media: Media, file_name: str | None) -> dict[str, str]:
    return {
        "Content-Type": media.content_type,
        "Content-Disposition": content_disposition(media.content_type, file_name or media.upload_name),
        "Accept-Ranges": "bytes",
    }


async def _send_stored(request: web.Request, media: Media, file_name: str | None) -> web.StreamResponse:
    downloads, config = request.app[DOWNLOADS], request.app[SETTINGS].downloads
    etag = media_etag(media)
    headers = cache_headers(etag, media, config.max_age_s)
    if is_not_modified(request.headers, etag=etag, modified_ts=media.created_ts):
        return web.Response(status=304, headers=headers)
    size_bytes = media.blob.size_bytes if media.blob is not None else 0
    byte_range = None
    ranged = request.method == "GET" and "Range" in request.headers  # RFC 9110: Range is for GET alone
    if ranged and range_applies(request.headers, etag=etag, modified_ts=media.created_ts):
        byte_range = parse_range(request.headers["Range"], size_bytes)
    headers |= _content_headers(media, file_name)
    if byte_range is not None:
        headers["Content-Range"] = f"bytes {byte_range.offset}-{byte_range.last}/{size_bytes}"
    to_send = size_bytes if byte_range is None else byte_range.size_bytes
    status = 200 if byte_range is None else 206
    if request.method == "HEAD":
        headers["Content-Length"] = str(to_send)
        return web.Response(status=status, headers=headers)
    return await send_bytes(
        request,
        downloads.open(media, byte_range),
        size_bytes=to_send,
        status=status,
        headers=headers,
        idle_timeout_ms=config.idle_timeout_ms,
    )


def cache_headers(etag: str, media: Media, max_age_s: int) -> dict[str, str]:
    """Say how long and by which tag a client may keep media that never changes."""
    return {
        "ETag": etag,
        "Last-Modified": http_date(media.created_ts),
        "Cache-Control": f"private, max-age={max_age_s}, immutable",
    }
