"""GET of a URL preview (client-server API, GET preview_url)."""

from aiohttp import web

from mediarepo.errors import ForbiddenError, MissingParamError
from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import PREVIEWS
from mediarepo.web.params import Query
from mediarepo.web.rate_limits import limit_preview


async def preview_url(request: web.Request) -> web.Response:
    """Return the preview of a web page; `ts` is accepted, and the page is described as it is now.

    Raises MissingParamError without `url`, ForbiddenError when the homeserver has previews disabled.
    """
    query, tenant = Query(request), tenant_required(request)
    requester = await requester_required(request, tenant, query)
    if not tenant.url_previews:
        raise ForbiddenError("URL Previews are disabled")
    url = query.text("url")
    if url is None:
        raise MissingParamError("Missing required string query parameter url")
    query.count("ts", default=0)
    limit_preview(request, requester)
    answer = await request.app[PREVIEWS].get(url, tenant, accept_language=request.headers.get("Accept-Language"))
    return json_response(answer)
