"""Storing a request's body as a user's upload, with all that is judged before the body is read."""

from aiohttp import web

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.requester import Requester
from mediarepo.model.tasks import Lease
from mediarepo.web.keys import QUOTAS, UPLOADS
from mediarepo.web.limits import limit_upload
from mediarepo.web.params import Query, parse_content_type, parse_file_name
from mediarepo.web.wire.bodies import RequestBody


async def store_body(
    request: web.Request,
    query: Query,
    mxc: Mxc,
    *,
    tenant: HomeserverConfig,
    requester: Requester,
    lease: Lease | None = None,
) -> None:
    """Store the body as media with this address; what can be refused is, before the body is read."""
    uploads, quotas, body = request.app[UPLOADS], request.app[QUOTAS], RequestBody(request)
    max_bytes = quotas.max_file_bytes(requester)
    uploads.check_size(body.declared_bytes, max_bytes)
    content_type = parse_content_type(request.headers.get("Content-Type"))
    upload_name = parse_file_name(query.text("filename"))
    limit_upload(request, requester)
    async with quotas.reserving(requester, body.declared_bytes) as reservation:
        media = NewMedia(
            mxc=mxc,
            content_type=content_type,
            upload_name=upload_name,
            uploaded_by=requester.user_id,
            authenticated=tenant.freeze_legacy,
            lease=lease,
            reservation=reservation,
        )
        await uploads.store(media, body, declared_bytes=body.declared_bytes, max_bytes=max_bytes)
