"""GET of the limits that clients should know."""

from aiohttp import web

from mediarepo.web.auth import tenant_required, user_required
from mediarepo.web.keys import SETTINGS
from mediarepo.web.params import Query
from mediarepo.web.wire.responses import json_response


async def media_config(request: web.Request) -> web.Response:
    """Tell a user how large an upload may be."""
    await user_required(request, tenant_required(request), Query(request))
    return json_response({"m.upload.size": request.app[SETTINGS].uploads.max_bytes})
