"""POST /_matrix/media/v3/upload."""

from aiohttp import web

from mediarepo.model.keys import new_media_id
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.web.auth import tenant_required, user_required
from mediarepo.web.keys import UPLOADS
from mediarepo.web.params import Query, parse_content_type, parse_file_name
from mediarepo.web.wire.bodies import RequestBody
from mediarepo.web.wire.responses import json_response


async def upload(request: web.Request) -> web.Response:
    """Store the body and answer with its mxc:// address; everything that can be refused is, before the body is read."""
    query = Query(request)
    tenant = tenant_required(request)
    requester = await user_required(request, tenant, query)
    body, uploads = RequestBody(request), request.app[UPLOADS]
    uploads.check_size(body.declared_bytes)
    media = NewMedia(
        mxc=Mxc(tenant.server_name, new_media_id()),
        content_type=parse_content_type(request.headers.get("Content-Type")),
        upload_name=parse_file_name(query.text("filename")),
        uploaded_by=requester.user_id,
        authenticated=tenant.freeze_legacy,
    )
    await uploads.store(media, body, declared_bytes=body.declared_bytes)
    return json_response({"content_uri": str(media.mxc)})
