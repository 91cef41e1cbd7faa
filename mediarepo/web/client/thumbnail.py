"""GET of thumbnails, on the authenticated and the legacy paths."""

from aiohttp import web

from mediarepo.services.access_policy import DownloadOptions
from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.client.download import legacy_tenant, parse_download_options
from mediarepo.web.keys import THUMBNAILS
from mediarepo.web.media_response import send_media
from mediarepo.web.params import Query, parse_media_path, thumbnail_spec
from mediarepo.web.rate_limits import limit_anonymous, limit_download


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
    mxc, _ = parse_media_path(request)
    spec = thumbnail_spec(query)
    return await send_media(request, lambda: request.app[THUMBNAILS].find(mxc, spec, options))
