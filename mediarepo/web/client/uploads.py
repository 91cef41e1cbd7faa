"""POST of uploads, asynchronous uploads (create, then PUT), and GET of the limits (MSC4034)."""

from aiohttp import web

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import NotFoundError
from mediarepo.model.ids import new_media_id
from mediarepo.model.media import NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.requester import Requester
from mediarepo.model.tasks import Lease
from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.http.headers import RequestBody
from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import PENDING, QUOTAS, UPLOADS, USAGE
from mediarepo.web.params import Query, note_mxc, parse_content_type, parse_file_name, parse_media_path
from mediarepo.web.rate_limits import limit_create, limit_upload


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
        await uploads.store_upload(media, body, declared_bytes=body.declared_bytes, max_bytes=max_bytes)


async def upload(request: web.Request) -> web.Response:
    """Store the body and answer with its mxc:// address."""
    query = Query(request)
    tenant = tenant_required(request)
    requester = await requester_required(request, tenant, query)
    mxc = note_mxc(Mxc(tenant.server_name, new_media_id()))
    await store_body(request, query, mxc, tenant=tenant, requester=requester)
    return json_response({"content_uri": str(mxc)})


async def create(request: web.Request) -> web.Response:
    """Give out a media id whose content is to follow; the request's body says nothing."""
    tenant = tenant_required(request)
    requester = await requester_required(request, tenant, Query(request))
    limit_create(request, requester)
    pending = await request.app[PENDING].create(note_mxc(Mxc(tenant.server_name, new_media_id())), requester)
    return json_response({"content_uri": str(pending.mxc), "unused_expires_at": pending.expires_ts})


async def upload_to(request: web.Request) -> web.Response:
    """Store the body under a media id created before; whether that is allowed is checked before the body is read.

    Raises NotFoundError for another homeserver's media id.
    """
    query, tenant = Query(request), tenant_required(request)
    requester = await requester_required(request, tenant, query)
    mxc, _ = parse_media_path(request)
    if mxc.server_name != tenant.server_name:
        raise NotFoundError("there is no such media id")
    async with request.app[PENDING].claim(mxc, requester) as lease:
        await store_body(request, query, mxc, tenant=tenant, requester=requester, lease=lease)
    return json_response({})


_PREFIX = "org.matrix.msc4034.storage"


async def media_config(request: web.Request) -> web.Response:
    """Tell a user how large an upload may be, and how much may be stored (MSC4034) if there is a limit."""
    requester = await requester_required(request, tenant_required(request), Query(request))
    quotas = request.app[QUOTAS]
    body = {"m.upload.size": quotas.max_file_bytes(requester)}
    rule = quotas.rule_for(requester)
    if rule is not None and rule.max_bytes is not None:
        body[f"{_PREFIX}.size"] = rule.max_bytes
    if rule is not None and rule.max_media is not None:
        body[f"{_PREFIX}.max_files"] = rule.max_media
    return json_response(body)


async def media_usage(request: web.Request) -> web.Response:
    """Tell a user how many bytes and files they have uploaded."""
    requester = await requester_required(request, tenant_required(request), Query(request))
    usage = await request.app[USAGE].of_user(requester.user_id)
    return json_response({f"{_PREFIX}.used": usage.size_bytes, f"{_PREFIX}.files": usage.media_count})
