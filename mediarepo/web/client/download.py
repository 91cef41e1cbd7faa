"""GET and HEAD of media, on the authenticated and the legacy paths."""

from dataclasses import replace

from aiohttp import web

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import BadRequestError, ForbiddenError, MediaHostUnknownError
from mediarepo.model.authority import Action
from mediarepo.services.access_policy import DownloadOptions
from mediarepo.web.auth import bearer_token, find_tenant, requester_required, tenant_required
from mediarepo.web.keys import ACCESS, ADMINS, AUTHORIZATION, SETTINGS, TENANTS
from mediarepo.web.media_response import may_be_teed, send_media
from mediarepo.web.params import Query, parse_media_path
from mediarepo.web.rate_limits import limit_anonymous, limit_download


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
    """Return the homeserver of the Host, or of the path: old links may use any host. Raises MediaHostUnknownError."""
    mxc, _ = parse_media_path(request)
    tenant = find_tenant(request) or request.app[TENANTS].by_server_name(mxc.server_name)
    if tenant is None:
        raise MediaHostUnknownError("no homeserver with this Host is served here")
    return tenant


async def _send(request: web.Request, options: DownloadOptions) -> web.StreamResponse:
    mxc, file_name = parse_media_path(request)
    access = request.app[ACCESS]
    find = access.find_or_tee if may_be_teed(request) else access.find
    return await send_media(request, lambda: find(mxc, options), file_name=file_name)
