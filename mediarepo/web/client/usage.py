"""GET of what a user has stored so far (MSC4034)."""

from aiohttp import web

from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.keys import USAGE
from mediarepo.web.params import Query
from mediarepo.web.wire.responses import json_response

_PREFIX = "org.matrix.msc4034.storage"


async def media_usage(request: web.Request) -> web.Response:
    """Tell a user how many bytes and files they have uploaded."""
    requester = await requester_required(request, tenant_required(request), Query(request))
    usage = await request.app[USAGE].of_user(requester.user_id)
    return json_response({f"{_PREFIX}.used": usage.size_bytes, f"{_PREFIX}.files": usage.media_count})
