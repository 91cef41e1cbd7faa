"""Who asks an admin endpoint."""

from aiohttp import web

from mediarepo.model.mxc import Mxc
from mediarepo.services.admins import Admin
from mediarepo.web.auth import bearer_token, find_tenant, tenant_required
from mediarepo.web.keys import ADMINS, TENANTS
from mediarepo.web.params import Query


async def admin_required(request: web.Request, query: Query) -> Admin:
    """Identify an admin of the homeserver that the request's Host belongs to."""
    tenant = tenant_required(request)
    return await request.app[ADMINS].identify(tenant, bearer_token(request, query))


async def api_admin_required(request: web.Request, query: Query) -> Admin:
    """Identify an admin; the operator may come by any Host."""
    token = bearer_token(request, query)
    tenant = find_tenant(request)
    if tenant is None and request.app[ADMINS].is_operators(token):
        tenant = request.app[TENANTS].first
    return await request.app[ADMINS].identify(tenant or tenant_required(request), token)


def within_reach(request: web.Request, admin: Admin, mxc: Mxc) -> Mxc:
    """Give the address back if it is not another homeserver's here."""
    request.app[ADMINS].check_reach(admin, mxc)
    return mxc
