"""POST /_matrix/media/v1/create, and PUT of the content that follows."""

from aiohttp import web

from mediarepo.errors import NotFoundError
from mediarepo.model.keys import new_media_id
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.web.auth import tenant_required, user_required
from mediarepo.web.keys import PENDING, UPLOADS
from mediarepo.web.params import Query, media_path, parse_content_type, parse_file_name
from mediarepo.web.wire.bodies import RequestBody
from mediarepo.web.wire.responses import json_response


async def create(request: web.Request) -> web.Response:
    """Give out a media id whose content is to follow; the request's body says nothing."""
    tenant = tenant_required(request)
    requester = await user_required(request, tenant, Query(request))
    pending = await request.app[PENDING].create(Mxc(tenant.server_name, new_media_id()), requester)
    return json_response({"content_uri": str(pending.mxc), "unused_expires_at": pending.expires_ts})


async def upload_to(request: web.Request) -> web.Response:
    """Store the body under a media id given out before; whether that may be is judged before the body is."""
    query, tenant = Query(request), tenant_required(request)
    requester = await user_required(request, tenant, query)
    mxc, _ = media_path(request)
    if mxc.server_name != tenant.server_name:
        raise NotFoundError("there is no such media id")
    async with request.app[PENDING].claim(mxc, requester) as lease:
        body, uploads = RequestBody(request), request.app[UPLOADS]
        uploads.check_size(body.declared_bytes)
        media = NewMedia(
            mxc=mxc,
            content_type=parse_content_type(request.headers.get("Content-Type")),
            upload_name=parse_file_name(query.text("filename")),
            uploaded_by=requester.user_id,
            authenticated=tenant.freeze_legacy,
            lease=lease,
        )
        await uploads.store(media, body, declared_bytes=body.declared_bytes)
    return json_response({})
