"""Synapse's admin API for media: reading, deleting, purging; the same paths, parameters and answers."""

from aiohttp import web

from mediarepo.errors import BadRequestError, InvalidParamError
from mediarepo.model.media_admin import MediaRecord
from mediarepo.model.mxc import Mxc
from mediarepo.web.admin.access import admin_required
from mediarepo.web.keys import AUTHORIZATION, DELETION, RECORDS
from mediarepo.web.params import Query, media_path
from mediarepo.web.wire.responses import json_response

_SECONDS_NOT_MS = 30_000_000_000


async def media_info(request: web.Request) -> web.Response:
    """Tell everything that is known of media."""
    admin = await admin_required(request, Query(request))
    mxc, _ = media_path(request)
    viewer = request.app[AUTHORIZATION].viewer(admin)
    return json_response({"media_info": _info(await request.app[RECORDS].get(mxc, viewer))})


async def delete_media(request: web.Request) -> web.Response:
    """Delete one of the homeserver's media."""
    admin = await admin_required(request, Query(request))
    mxc, _ = media_path(request)
    if mxc.server_name != admin.homeserver.server_name:
        raise BadRequestError("Can only delete local media")
    await request.app[RECORDS].get(mxc, None)
    return deleted(await request.app[DELETION].delete([mxc], admin))


async def delete_by_date_and_size(request: web.Request) -> web.Response:
    """Delete the homeserver's media that nobody asked for since, if they are large enough."""
    query = Query(request)
    admin = await admin_required(request, query)
    if request.match_info.get("server_name", admin.homeserver.server_name) != admin.homeserver.server_name:
        raise BadRequestError("Can only delete local media")
    before_ts, size_over = before_ts_of(query), query.count("size_gt", default=0)
    keep_profiles = query.flag("keep_profiles", default=True)
    gone = await request.app[DELETION].delete_idle(
        admin, before_ts=before_ts, size_over=size_over, keep_profiles=keep_profiles
    )
    return deleted(gone)


async def purge_remote(request: web.Request) -> web.Response:
    """Forget other servers' media that nobody asked for since."""
    query = Query(request)
    admin = await admin_required(request, query)
    return json_response({"deleted": await request.app[DELETION].purge_remote(admin, before_ts=before_ts_of(query))})


def before_ts_of(query: Query) -> int:
    """Read a point in time, in ms; one in seconds is a mistake that would delete nothing or everything."""
    before_ts = query.count("before_ts")
    if before_ts < _SECONDS_NOT_MS:
        raise InvalidParamError(
            "Query parameter before_ts you provided is from the year 1970. "
            "Double check that you are providing a timestamp in milliseconds."
        )
    return before_ts


def deleted(gone: list[Mxc]) -> web.Response:
    """Name what was deleted."""
    return json_response({"deleted_media": [mxc.media_id for mxc in gone], "total": len(gone)})


def _info(record: MediaRecord) -> dict[str, object]:
    remote = record.remote
    return {
        "media_origin": record.mxc.server_name if remote else None,
        "user_id": None if remote else record.uploaded_by,
        "media_id": record.mxc.media_id,
        "media_type": record.content_type,
        "media_length": record.size_bytes,
        "upload_name": record.upload_name,
        "created_ts": record.created_ts,
        "filesystem_id": record.mxc.media_id if remote else None,
        "url_cache": None,
        "last_access_ts": record.last_access_ts,
        "quarantined_by": record.quarantined_by,
        "authenticated": record.authenticated,
        "safe_from_quarantine": None if remote else record.protected,
        "sha256": record.sha256,
    }
