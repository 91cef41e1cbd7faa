"""Authenticates and authorizes admin requests, and answers them when what they did holds everywhere."""

import functools
from collections.abc import Awaitable, Callable

from aiohttp import web

from mediarepo.model.authority import Thing
from mediarepo.model.declared import check_text
from mediarepo.model.mxc import Mxc
from mediarepo.services.authorization import Admin
from mediarepo.web.auth import RequiredPermission, bearer_token, find_tenant, required_permission, tenant_required
from mediarepo.web.keys import ADMINS, AUTHORIZATION, INVALIDATION, PROXIES, TENANTS
from mediarepo.web.params import Query, parse_media_path, path_segments

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SETTLING = "is_settling"
"""The attribute of handlers that `settling` has made."""


def settling(handler: _Handler) -> _Handler:
    """Return a handler that answers, or refuses, when every process has dropped the rows it had read before."""

    @functools.wraps(handler)
    async def serve(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            await request.app[INVALIDATION].settle()

    setattr(serve, SETTLING, True)
    return serve


async def admin_required(request: web.Request, query: Query) -> Admin:
    """Authenticate an admin of the homeserver of the request's Host, and check the route's permission."""
    tenant = tenant_required(request)
    address = request.app[PROXIES].client_address(request)
    admin = await request.app[ADMINS].identify(tenant, bearer_token(request, query), address)
    check_text([*query.fields().items(), *(("the path", one) for one in path_segments(request, _segments(request)))])
    check_permission(request, admin, required_permission(request))
    return admin


async def api_admin_required(request: web.Request, query: Query) -> Admin:
    """Authenticate an admin; the operator may use any Host."""
    token = bearer_token(request, query)
    tenant = find_tenant(request)
    if tenant is None and request.app[ADMINS].is_operators(token):
        tenant = request.app[TENANTS].first
    address = request.app[PROXIES].client_address(request)
    return await request.app[ADMINS].identify(tenant or tenant_required(request), token, address)


def check_permission(request: web.Request, admin: Admin, permission: RequiredPermission) -> None:
    """Check the table of authority, for the media or the user that the path names."""
    authorization = request.app[AUTHORIZATION]
    if permission.of_path and "user_id" in request.match_info:
        authorization.check_user(admin, permission.action, _user_id(request))
    elif permission.of_path and permission.thing is Thing.OWN_MEDIA:
        authorization.check_media(admin, permission.action, _mxc(request))
    else:
        authorization.check(admin, permission.action, permission.thing)


def _segments(request: web.Request) -> int:
    return len(request.rel_url.raw_path.strip("/").split("/"))


def _user_id(request: web.Request) -> str:
    """Read the user that the path names, wherever it stands there."""
    resource = request.match_info.route.resource
    names = "" if resource is None else resource.canonical
    behind = len(names.split("/")) - names.split("/").index("{user_id}")
    return path_segments(request, behind)[0]


def _mxc(request: web.Request) -> Mxc:
    """Read the media that the path names, wherever they stand there."""
    resource = request.match_info.route.resource
    behind = "" if resource is None else resource.canonical.partition("{media_id}")[2]
    return parse_media_path(request, behind.count("/"))[0]
