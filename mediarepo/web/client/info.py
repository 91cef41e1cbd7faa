"""GET of what media are, as matrix-media-repo answers it (MSC2380), with the BlurHash of MSC2448."""

from typing import Any

from aiohttp import web

from mediarepo.errors import UnrecognizedPathError
from mediarepo.services.media_info import MediaInfo
from mediarepo.web.auth import requester_required, tenant_required
from mediarepo.web.client.download import parse_download_options
from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import MEDIA_INFO, SETTINGS
from mediarepo.web.params import Query, parse_media_path
from mediarepo.web.rate_limits import limit_download


async def media_info(request: web.Request) -> web.Response:
    """Tell a user what media are. Raises UnrecognizedPathError where this is not switched on."""
    query, tenant = Query(request), tenant_required(request)
    requester = await requester_required(request, tenant, query)
    if not request.app[SETTINGS].thumbnails.media_info:
        raise UnrecognizedPathError("media info is disabled")
    limit_download(request, requester)
    mxc, _ = parse_media_path(request)
    info = await request.app[MEDIA_INFO].get(mxc, parse_download_options(request, query, tenant))
    return json_response(info_document(info))


def info_document(info: MediaInfo) -> dict[str, Any]:
    """Write the answer; what is not known is left out."""
    document: dict[str, Any] = {
        "content_uri": str(info.media.mxc),
        "content_type": info.media.content_type,
        "size": info.size_bytes,
    }
    if info.content.sha256 is not None:
        document["hashes"] = {"sha256": info.content.sha256}
    if info.content.picture is not None:
        document["width"], document["height"] = info.content.picture.width, info.content.picture.height
        document["xyz.amorgan.blurhash"] = info.content.picture.blurhash
    if info.content.thumbnails:
        document["thumbnails"] = [
            {
                "width": one.width,
                "height": one.height,
                "method": one.method,
                "ready": True,
                "content_type": one.content_type,
                "size": one.size_bytes,
            }
            for one in info.content.thumbnails
        ]
    return document
