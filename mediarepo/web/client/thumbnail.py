"""GET of thumbnails, on the authenticated and the legacy paths."""

from aiohttp import web

from mediarepo.errors import ContentLostError
from mediarepo.services.downloads import DownloadOptions
from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.client.download import cache_headers, legacy_tenant, parse_download_options
from mediarepo.web.http.headers import is_not_modified, thumbnail_etag
from mediarepo.web.http.responses import send_bytes
from mediarepo.web.keys import SETTINGS, THUMBNAILS
from mediarepo.web.params import Query, parse_media_path, thumbnail_spec
from mediarepo.web.rate_limits import limit_anonymous, limit_download

_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/gif": "gif", "image/webp": "webp"}


async def thumbnail(request: web.Request) -> web.StreamResponse:
    """Send a thumbnail to a user."""
    query, tenant = Query(request), tenant_required(request)
    limit_download(request, await requester_required(request, tenant, query))
    return await _send(request, query, parse_download_options(request, query, tenant))


async def legacy_thumbnail(request: web.Request) -> web.StreamResponse:
    """Send a thumbnail of media from before the freeze to anybody."""
    query = Query(request)
    options = parse_download_options(request, query, legacy_tenant(request), legacy=True)
    limit_anonymous(request)
    return await _send(request, query, options)


async def _send(request: web.Request, query: Query, options: DownloadOptions) -> web.StreamResponse:
    try:
        return await _send_kept(request, query, options)
    except ContentLostError:
        return await _send_kept(request, query, options)


async def _send_kept(request: web.Request, query: Query, options: DownloadOptions) -> web.StreamResponse:
    mxc, _ = parse_media_path(request)
    thumbnails, config = request.app[THUMBNAILS], request.app[SETTINGS].downloads
    found = await thumbnails.find(mxc, thumbnail_spec(query), options)
    etag = thumbnail_etag(found.media, found.thumbnail.spec)
    headers = cache_headers(etag, found.media, config.max_age_s)
    if is_not_modified(request.headers, etag=etag, modified_ts=found.media.created_ts):
        return web.Response(status=304, headers=headers)
    content_type = found.thumbnail.content_type
    headers["Content-Type"] = content_type
    headers["Content-Disposition"] = thumbnail_disposition(content_type)
    if request.method == "HEAD":
        headers["Content-Length"] = str(found.thumbnail.size_bytes)
        return web.Response(headers=headers)
    return await send_bytes(
        request,
        thumbnails.open(found),
        size_bytes=found.thumbnail.size_bytes,
        status=200,
        headers=headers,
        idle_timeout_ms=config.idle_timeout_ms,
    )


def thumbnail_disposition(content_type: str) -> str:
    """Name a thumbnail after its kind."""
    return f"inline; filename=thumbnail.{_EXTENSIONS.get(content_type, 'bin')}"
