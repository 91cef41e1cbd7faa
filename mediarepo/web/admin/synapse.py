"""Synapse's admin API for media, quarantine and users' media."""

from enum import StrEnum

from aiohttp import web

from mediarepo.errors import BadRequestError, InvalidParamError
from mediarepo.model.media_admin import MediaRecord, Page, RecordOrder, UserOrder
from mediarepo.model.mxc import Mxc, parse_media_id
from mediarepo.services.media_admin import PageRequest
from mediarepo.web.admin.access import admin_required
from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import AUTHORIZATION, DELETION, QUARANTINE, RECORDS
from mediarepo.web.params import Query, parse_media_path, path_segments

_SECONDS_NOT_MS = 30_000_000_000


async def media_info(request: web.Request) -> web.Response:
    """Return all metadata of media."""
    admin = await admin_required(request, Query(request))
    mxc, _ = parse_media_path(request)
    viewer = request.app[AUTHORIZATION].viewer(admin)
    return json_response({"media_info": _info(await request.app[RECORDS].get(mxc, viewer))})


async def delete_media(request: web.Request) -> web.Response:
    """Delete media of the admin's homeserver. Raises BadRequestError when it is another server's."""
    admin = await admin_required(request, Query(request))
    mxc, _ = parse_media_path(request)
    if mxc.server_name != admin.homeserver.server_name:
        raise BadRequestError("Can only delete local media")
    await request.app[RECORDS].get(mxc, None)
    return deleted(await request.app[DELETION].delete([mxc], admin))


async def delete_by_date_and_size(request: web.Request) -> web.Response:
    """Delete the homeserver's media last accessed before `before_ts` and larger than `size_gt` bytes.

    Raises BadRequestError when the path names another homeserver.
    """
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
    """Delete cached remote media that were not used since."""
    query = Query(request)
    admin = await admin_required(request, query)
    return json_response({"deleted": await request.app[DELETION].purge_remote(admin, before_ts=before_ts_of(query))})


def before_ts_of(query: Query) -> int:
    """Parse `before_ts`, in ms since 1970. Raises InvalidParamError when it looks like seconds."""
    before_ts = query.count("before_ts")
    if before_ts < _SECONDS_NOT_MS:
        raise InvalidParamError(
            "Query parameter before_ts you provided is from the year 1970. "
            "Double check that you are providing a timestamp in milliseconds."
        )
    return before_ts


def deleted(gone: list[Mxc]) -> web.Response:
    """Return the response that lists deleted media."""
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


_PAGE = 100


async def quarantine(request: web.Request) -> web.Response:
    """Quarantine media."""
    admin = await admin_required(request, Query(request))
    mxc, _ = parse_media_path(request)
    await request.app[QUARANTINE].hide(mxc, admin)
    return json_response({})


async def unquarantine(request: web.Request) -> web.Response:
    """Lift the quarantine of media."""
    admin = await admin_required(request, Query(request))
    mxc, _ = parse_media_path(request)
    await request.app[QUARANTINE].show(mxc, admin)
    return json_response({})


async def quarantine_user(request: web.Request) -> web.Response:
    """Quarantine everything that a user uploaded."""
    admin = await admin_required(request, Query(request))
    user_id, _, _ = path_segments(request, 3)
    outcome = await request.app[QUARANTINE].hide_user_media(user_id, admin)
    return json_response({"num_quarantined": outcome.affected})


async def quarantine_room(request: web.Request) -> web.Response:
    """Quarantine everything that a room's events mention."""
    admin = await admin_required(request, Query(request))
    room_id = path_segments(request, 3)[0] if request.path.endswith("/quarantine") else path_segments(request, 1)[0]
    outcome = await request.app[QUARANTINE].hide_room_media(room_id, admin)
    return json_response({"num_quarantined": outcome.affected})


async def protect(request: web.Request) -> web.Response:
    """Protect the homeserver's media against quarantine."""
    return await _protect(request, protected=True)


async def unprotect(request: web.Request) -> web.Response:
    """End the protection against quarantine."""
    return await _protect(request, protected=False)


async def _protect(request: web.Request, *, protected: bool) -> web.Response:
    admin = await admin_required(request, Query(request))
    (media_id,) = path_segments(request, 1)
    mxc = Mxc(admin.homeserver.server_name, parse_media_id(media_id))
    await request.app[QUARANTINE].protect(mxc, admin, protected=protected)
    return json_response({})


async def quarantine_changes(request: web.Request) -> web.Response:
    """List quarantine changes, oldest first."""
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


_DEFAULT_LIMIT = 100
_MAX_LIMIT = 10_000


class Direction(StrEnum):
    """Sort direction."""

    FORWARDS = "f"
    BACKWARDS = "b"


async def list_user_media(request: web.Request) -> web.Response:
    """List a user's uploads."""
    page, start, limit = await _page(request)
    return json_response(_with_next({"media": [_media(one) for one in page.records]}, page.total, start, limit))


async def delete_user_media(request: web.Request) -> web.Response:
    """Delete a page of a user's uploads."""
    admin = await admin_required(request, Query(request))
    page, _, _ = await _page(request)
    return deleted(await request.app[DELETION].delete([one.mxc for one in page.records], admin))


async def user_statistics(request: web.Request) -> web.Response:
    """List each user's number and size of media.

    Raises InvalidParamError when the times are in the wrong order, or the search term is empty.
    """
    query = Query(request)
    admin = await admin_required(request, query)
    from_ts = query.count("from_ts", default=0)
    until_ts = query.count("until_ts") if query.text("until_ts") is not None else None
    if until_ts is not None and until_ts <= from_ts:
        raise InvalidParamError("Query parameter until_ts must be greater than from_ts.")
    search_term = query.text("search_term")
    if search_term == "":
        raise InvalidParamError("Query parameter search_term cannot be an empty string.")
    page_request = _stretch(query, backwards=query.choice("dir", Direction) is Direction.BACKWARDS)
    users, total = await request.app[RECORDS].of_users(
        admin,
        query.choice("order_by", UserOrder) or UserOrder.USER_ID,
        page_request,
        from_ts=from_ts,
        until_ts=until_ts,
        search_term=search_term,
    )
    found = [
        {
            "user_id": one.user_id,
            "displayname": one.displayname,
            "media_count": one.media_count,
            "media_length": one.media_length,
        }
        for one in users
    ]
    return json_response(_with_next({"users": found}, total, page_request.start, page_request.limit))


async def _page(request: web.Request) -> tuple[Page, int, int]:
    """Read the stretch of a user's uploads that is asked for; newest first unless told."""
    query = Query(request)
    admin = await admin_required(request, query)
    user_id, _ = path_segments(request, 2)
    order, direction = query.choice("order_by", RecordOrder), query.choice("dir", Direction)
    newest_first = order is None and direction is None
    page_request = _stretch(query, backwards=newest_first or direction is Direction.BACKWARDS)
    page = await request.app[RECORDS].of_user(user_id, admin, order or RecordOrder.CREATED_TS, page_request)
    return page, page_request.start, page_request.limit


def _stretch(query: Query, *, backwards: bool) -> PageRequest:
    limit = min(query.count("limit", default=_DEFAULT_LIMIT), _MAX_LIMIT)
    return PageRequest(query.count("from", default=0), limit, backwards)


def _with_next(body: dict[str, object], total: int, start: int, limit: int) -> dict[str, object]:
    """Say how many there are, and where to go on if there are more."""
    body["total"] = total
    if start + limit < total:
        body["next_token"] = start + limit
    return body


def _media(record: MediaRecord) -> dict[str, object]:
    return {
        "created_ts": record.created_ts,
        "last_access_ts": record.last_access_ts,
        "media_id": record.mxc.media_id,
        "media_length": record.size_bytes,
        "media_type": record.content_type,
        "quarantined_by": record.quarantined_by,
        "safe_from_quarantine": record.protected,
        "upload_name": record.upload_name,
        "url_cache": None,
        "user_id": record.uploaded_by,
        "authenticated": record.authenticated,
        "sha256": record.sha256,
    }
