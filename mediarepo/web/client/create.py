"""POST /_matrix/media/v1/create, and PUT of the content that follows."""

from aiohttp import web

from mediarepo.errors import NotFoundError
from mediarepo.model.ids import new_media_id
from mediarepo.model.mxc import Mxc
from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.client.storing import store_body
from mediarepo.web.keys import PENDING
from mediarepo.web.limits import limit_create
from mediarepo.web.params import Query, media_path
from mediarepo.web.wire.responses import json_response


async def create(request: web.Request) -> web.Response:
    """Give out a media id whose content is to follow; the request's body says nothing."""
    tenant = tenant_required(request)
    requester = await requester_required(request, tenant, Query(request))
    limit_create(request, requester)
    pending = await request.app[PENDING].create(Mxc(tenant.server_name, new_media_id()), requester)
    return json_response({"content_uri": str(pending.mxc), "unused_expires_at": pending.expires_ts})


async def upload_to(request: web.Request) -> web.Response:
    """Store the body under a media id given out before; whether that may be is judged before the body is."""
    query, tenant = Query(request), tenant_required(request)
    requester = await requester_required(request, tenant, query)
    mxc, _ = media_path(request)
    if mxc.server_name != tenant.server_name:
        raise NotFoundError("there is no such media id")
    async with request.app[PENDING].claim(mxc, requester) as lease:
        await store_body(request, query, mxc, tenant=tenant, requester=requester, lease=lease)
    return json_response({})
