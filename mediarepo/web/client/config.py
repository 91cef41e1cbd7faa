"""GET of the limits that clients should know."""

from aiohttp import web

from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.keys import QUOTAS
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
