"""Who asks an admin endpoint."""

from aiohttp import web

from mediarepo.services.admins import Admin
from mediarepo.web.auth import bearer_token, tenant_required
from mediarepo.web.keys import ADMINS
from mediarepo.web.params import Query


async def admin_required(request: web.Request, query: Query) -> Admin:
    """Identify an admin of the homeserver that the request's Host belongs to."""
    tenant = tenant_required(request)
    return await request.app[ADMINS].identify(tenant, bearer_token(request, query))
