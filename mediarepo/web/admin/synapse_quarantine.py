"""Synapse's admin API for quarantine and protection."""

from aiohttp import web

from mediarepo.model.mxc import Mxc, parse_media_id
from mediarepo.web.admin.access import admin_required
from mediarepo.web.keys import QUARANTINE
from mediarepo.web.params import Query, media_path, path_segments
from mediarepo.web.wire.responses import json_response

_PAGE = 100


async def quarantine(request: web.Request) -> web.Response:
    """Hide media."""
    admin = await admin_required(request, Query(request))
    mxc, _ = media_path(request)
    await request.app[QUARANTINE].hide(mxc, admin)
    return json_response({})


async def unquarantine(request: web.Request) -> web.Response:
    """Show media again."""
    admin = await admin_required(request, Query(request))
    mxc, _ = media_path(request)
    await request.app[QUARANTINE].show(mxc, admin)
    return json_response({})


async def quarantine_user(request: web.Request) -> web.Response:
    """Hide everything that a user uploaded."""
    admin = await admin_required(request, Query(request))
    user_id, _, _ = path_segments(request, 3)
    outcome = await request.app[QUARANTINE].hide_of_user(user_id, admin)
    return json_response({"num_quarantined": outcome.affected})


async def quarantine_room(request: web.Request) -> web.Response:
    """Hide everything that a room's events mention."""
    admin = await admin_required(request, Query(request))
    room_id = path_segments(request, 3)[0] if request.path.endswith("/quarantine") else path_segments(request, 1)[0]
    outcome = await request.app[QUARANTINE].hide_of_room(room_id, admin)
    return json_response({"num_quarantined": outcome.affected})


async def protect(request: web.Request) -> web.Response:
    """Spare one of the homeserver's media of quarantine."""
    return await _protect(request, protected=True)


async def unprotect(request: web.Request) -> web.Response:
    """Let media be quarantined again."""
    return await _protect(request, protected=False)


async def _protect(request: web.Request, *, protected: bool) -> web.Response:
    admin = await admin_required(request, Query(request))
    (media_id,) = path_segments(request, 1)
    mxc = Mxc(admin.homeserver.server_name, parse_media_id(media_id))
    await request.app[QUARANTINE].protect(mxc, admin, protected=protected)
    return json_response({})


async def quarantine_changes(request: web.Request) -> web.Response:
    """List what was hidden and shown, oldest first."""
    query = Query(request)
    admin = await admin_required(request, query)
    start = query.count("from", default=0)
    changes = await request.app[QUARANTINE].changes(admin, start, _PAGE)
    return json_response(
        {
            "next_batch": changes[-1].change_id if changes else start,
            "changes": [
                {"origin": one.mxc.server_name, "media_id": one.mxc.media_id, "quarantined": one.quarantined}
                for one in changes
            ],
        }
    )
