"""POST /_matrix/media/v3/upload."""

from aiohttp import web

from mediarepo.model.ids import new_media_id
from mediarepo.model.mxc import Mxc
from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.client.storing import store_body
from mediarepo.web.params import Query
from mediarepo.web.wire.responses import json_response


async def upload(request: web.Request) -> web.Response:
    """Store the body and answer with its mxc:// address."""
    query = Query(request)
    tenant = tenant_required(request)
    requester = await requester_required(request, tenant, query)
    mxc = Mxc(tenant.server_name, new_media_id())
    await store_body(request, query, mxc, tenant=tenant, requester=requester)
    return json_response({"content_uri": str(mxc)})
