"""GET of the upload limits, and of what a user has stored (MSC4034)."""

from aiohttp import web

from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.keys import QUOTAS, USAGE
from mediarepo.web.params import Query
from mediarepo.web.wire.responses import json_response

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
