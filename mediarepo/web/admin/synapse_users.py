"""Synapse's admin API for a user's media, and for what each user takes up."""

from enum import StrEnum

from aiohttp import web

from mediarepo.errors import InvalidParamError
from mediarepo.model.media_admin import MediaRecord, Page, RecordOrder, UserOrder
from mediarepo.services.media_admin import Stretch
from mediarepo.web.admin.access import admin_required
from mediarepo.web.admin.synapse_media import deleted
from mediarepo.web.keys import DELETION, RECORDS
from mediarepo.web.params import Query, path_segments
from mediarepo.web.wire.responses import json_response

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 10_000


class Direction(StrEnum):
    """Forwards or backwards."""

    FORWARDS = "f"
    BACKWARDS = "b"


async def list_user_media(request: web.Request) -> web.Response:
    """List a user's uploads."""
    page, start, limit = await _page(request)
    return json_response(_with_next({"media": [_media(one) for one in page.records]}, page.total, start, limit))


async def delete_user_media(request: web.Request) -> web.Response:
    """Delete a stretch of a user's uploads."""
    admin = await admin_required(request, Query(request))
    page, _, _ = await _page(request)
    return deleted(await request.app[DELETION].delete([one.mxc for one in page.records], admin))


async def user_statistics(request: web.Request) -> web.Response:
    """List what each user takes up."""
    query = Query(request)
    admin = await admin_required(request, query)
    from_ts = query.count("from_ts", default=0)
    until_ts = query.count("until_ts") if query.text("until_ts") is not None else None
    if until_ts is not None and until_ts <= from_ts:
        raise InvalidParamError("Query parameter until_ts must be greater than from_ts.")
    search_term = query.text("search_term")
    if search_term == "":
        raise InvalidParamError("Query parameter search_term cannot be an empty string.")
    stretch = _stretch(query, backwards=query.choice("dir", Direction) is Direction.BACKWARDS)
    users, total = await request.app[RECORDS].of_users(
        admin,
        query.choice("order_by", UserOrder) or UserOrder.USER_ID,
        stretch,
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
    return json_response(_with_next({"users": found}, total, stretch.start, stretch.limit))


async def _page(request: web.Request) -> tuple[Page, int, int]:
    """Read the stretch of a user's uploads that is asked for; newest first unless told."""
    query = Query(request)
    admin = await admin_required(request, query)
    user_id, _ = path_segments(request, 2)
    order, direction = query.choice("order_by", RecordOrder), query.choice("dir", Direction)
    newest_first = order is None and direction is None
    stretch = _stretch(query, backwards=newest_first or direction is Direction.BACKWARDS)
    page = await request.app[RECORDS].of_user(user_id, admin, order or RecordOrder.CREATED_TS, stretch)
    return page, stretch.start, stretch.limit


def _stretch(query: Query, *, backwards: bool) -> Stretch:
    limit = min(query.count("limit", default=_DEFAULT_LIMIT), _MAX_LIMIT)
    return Stretch(query.count("from", default=0), limit, backwards)


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
