"""Admin endpoints for media: search, delete, restore, hold, pin, quarantine."""

import base64
import json

from mediarepo.errors import InvalidParamError, NotFoundError
from mediarepo.model.marks import Outcome
from mediarepo.model.media_admin import Search, SearchPlace
from mediarepo.model.mxc import Mxc, parse_mxc, parse_server_name
from mediarepo.web.admin.api.endpoints import Call
from mediarepo.web.admin.api.media_models import (
    BIGINT,
    Done,
    HiddenServers,
    MediaAnswer,
    MediaCount,
    MediaCountQuery,
    MediaFilter,
    MediaPage,
    MediaQuery,
    PictureAnswer,
    Reason,
)
from mediarepo.web.keys import AUTHORIZATION, DELETION, PICTURES, QUARANTINE, RECORDS

_NO_PLACE = "after: not the `next` of an earlier page"


async def search(call: Call) -> MediaPage:
    """Search media."""
    query = call.query(MediaQuery)
    found, place = await call.app[RECORDS].searches.find(
        _search(call, query),
        query.order_by,
        after=None if query.after is None else _place(query.after),
        limit=query.limit,
    )
    return MediaPage(media=found, next=None if place is None else _cursor(place))


async def count(call: Call) -> MediaCount:
    """Count the media that a search finds, up to `limit`."""
    query = call.query(MediaCountQuery)
    number, size_bytes = await call.app[RECORDS].searches.count(_search(call, query), query.limit)
    return MediaCount(media_count=number, size_bytes=size_bytes, more=number == query.limit)


def _search(call: Call, query: MediaFilter) -> Search:
    """Return the search of a query, as far as the admin may see."""
    conditions = query.model_dump(exclude={"order_by", "limit", "after", "sha256"})
    return Search(
        **conditions,
        sha256=None if query.sha256 is None else bytes.fromhex(query.sha256),
        hidden_from=call.app[AUTHORIZATION].out_of_reach(call.admin),
        viewer=call.app[AUTHORIZATION].viewer(call.admin),
    )


async def view(call: Call) -> PictureAnswer:
    """Return the thumbnail of media, quarantined or not; the audit log records who looked."""
    picture = await call.app[PICTURES].view(await _known(call), call.admin, reason=_reason(call))
    return PictureAnswer(content_type=picture.content_type, data=base64.b64encode(picture.data).decode())


async def get(call: Call) -> MediaAnswer:
    """Return all metadata of media."""
    return MediaAnswer(await call.app[RECORDS].get_any(_mxc(call), call.app[AUTHORIZATION].viewer(call.admin)))


async def delete(call: Call) -> Done:
    """Move media into the trash."""
    return _done(await call.app[DELETION].delete_one(await _known(call), call.admin, reason=_reason(call)))


async def restore(call: Call) -> Done:
    """Restore media from the trash; what the operator put there, only the operator restores."""
    return _done(await call.app[DELETION].restore(await _known(call), call.admin, reason=_reason(call)))


async def hold(call: Call) -> Done:
    """Put media under a legal hold, which prevents every deletion."""
    return _done(await call.app[DELETION].hold(await _known(call), call.admin, held=True, reason=_reason(call)))


async def release(call: Call) -> Done:
    """End the admin's own legal hold; the operator also ends those of others."""
    return _done(await call.app[DELETION].hold(await _known(call), call.admin, held=False, reason=_reason(call)))


async def pin(call: Call) -> Done:
    """Exempt media from retention."""
    return _done(await call.app[DELETION].pin(await _known(call), call.admin, pinned=True, reason=_reason(call)))


async def unpin(call: Call) -> Done:
    """Remove the pin; media stay exempt while others have pinned them."""
    return _done(await call.app[DELETION].pin(await _known(call), call.admin, pinned=False, reason=_reason(call)))


async def quarantine(call: Call) -> Done:
    """Quarantine media and all equal content, for the admin's homeserver or, as the operator, for all."""
    return _done(await call.app[QUARANTINE].hide(_mxc(call), call.admin, reason=_reason(call)))


async def unquarantine(call: Call) -> Done:
    """Lift the quarantine of media and all equal content; quarantines of others stay."""
    return _done(await call.app[QUARANTINE].show(_mxc(call), call.admin, reason=_reason(call)))


async def protect(call: Call) -> Done:
    """Protect media against quarantine; only the operator's protection holds against the operator's quarantine."""
    return _done(
        await call.app[QUARANTINE].protect(await _known(call), call.admin, protected=True, reason=_reason(call))
    )


async def unprotect(call: Call) -> Done:
    """End the protection against quarantine."""
    return _done(
        await call.app[QUARANTINE].protect(await _known(call), call.admin, protected=False, reason=_reason(call))
    )


async def quarantine_user(call: Call) -> Done:
    """Quarantine everything that a user uploaded."""
    return _done(await call.app[QUARANTINE].hide_user_media(call.path["user_id"], call.admin, reason=_reason(call)))


async def hidden_servers(call: Call) -> HiddenServers:
    """List the quarantined servers."""
    found = await call.app[QUARANTINE].table.servers()
    return HiddenServers(servers=found)


async def quarantine_server(call: Call) -> Done:
    """Quarantine all media of another server, stored here or not."""
    server_name, reason = parse_server_name(call.path["server_name"]), _reason(call)
    return Done(affected=int(await call.app[QUARANTINE].hide_server(server_name, call.admin, reason=reason)))


async def unquarantine_server(call: Call) -> Done:
    """Lift the quarantine of another server."""
    server_name, reason = call.path["server_name"], _reason(call)
    return Done(affected=int(await call.app[QUARANTINE].show_server(server_name, call.admin, reason=reason)))


def _mxc(call: Call) -> Mxc:
    return parse_mxc(call.path["server_name"], call.path["media_id"])


async def _known(call: Call) -> Mxc:
    mxc = _mxc(call)
    await call.app[RECORDS].get_any(mxc, None)
    return mxc


def _reason(call: Call) -> str | None:
    return call.body(Reason).reason


def _done(outcome: Outcome) -> Done:
    return Done(affected=outcome.affected, left_out=outcome.left_out)


def _cursor(place: SearchPlace) -> str:
    text = json.dumps([place.value, place.mxc.server_name, place.mxc.media_id])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _place(cursor: str) -> SearchPlace:
    try:
        value, server_name, media_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        place = SearchPlace(int(value), parse_mxc(str(server_name), str(media_id)))
    except (ValueError, TypeError, OverflowError, RecursionError, NotFoundError) as exc:
        raise InvalidParamError(_NO_PLACE) from exc
    if not -BIGINT <= place.value <= BIGINT:
        raise InvalidParamError(_NO_PLACE)
    return place
