"""The response to a request for media or a thumbnail: decided from the row, then written; the same for every endpoint.

Conditions are evaluated in the order of RFC 9110, section 13.2.2, before S3 is asked. Other servers get the same bytes
as a part of multipart/mixed (server-server API, "Content Repository"), without ranges.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from mediarepo.errors import ContentLostError
from mediarepo.federation.multipart import mixed_head, mixed_tail, new_boundary
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.media import FoundMedia, Media
from mediarepo.services.tee import TeeView
from mediarepo.web.hand_over import hand_over
from mediarepo.web.http.disposition import content_disposition
from mediarepo.web.http.headers import (
    check_preconditions,
    http_date,
    is_not_modified,
    media_etag,
    parse_range,
    range_applies,
    thumbnail_etag,
)
from mediarepo.web.http.responses import NO_FRAME, Frame, send_arriving, send_bytes
from mediarepo.web.keys import ACCESS, SETTINGS

_ATTEMPTS = 3
"""How often media is found when S3 has lost its bytes: a thumbnail, then its source, may be made and fetched anew."""
_ABOUT_STORED = frozenset({"Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"})
_MAX_DISPOSITION_CHARS = 900
"""The multipart head should arrive in one piece of at most about 1400 bytes: Synapse loses what it has to join."""
_SHORT_NAME_CHARS = 60
_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/gif": "gif", "image/webp": "webp"}

Find = Callable[[], Awaitable[FoundMedia | TeeView]]
"""Finds what is to be sent; called again when S3 has lost its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """What a client may know of media, or of a thumbnail, before its bytes."""

    etag: str
    modified_ts: int
    content_type: str
    disposition: str
    size_bytes: int

    @classmethod
    def of(cls, found: FoundMedia, file_name: str | None = None, *, short: bool = False) -> "Representation":
        """Describe what was found; `file_name` replaces the upload's, `short` bounds the Content-Disposition."""
        media, thumbnail = found.media, found.thumbnail
        if thumbnail is None:
            return cls(
                etag=media_etag(media),
                modified_ts=media.created_ts,
                content_type=media.content_type,
                disposition=media_disposition(media, file_name, short=short),
                size_bytes=0 if media.blob is None else media.blob.size_bytes,
            )
        extension = _EXTENSIONS.get(thumbnail.content_type, "bin")
        return cls(
            etag=thumbnail_etag(media, thumbnail.spec),
            modified_ts=media.created_ts,
            content_type=thumbnail.content_type,
            disposition=f"inline; filename=thumbnail.{extension}",
            size_bytes=thumbnail.size_bytes,
        )


def media_disposition(media: Media, file_name: str | None = None, *, short: bool = False) -> str:
    """Write the Content-Disposition of media; `short` cuts a name for which other servers have no room."""
    name = file_name or media.upload_name
    disposition = content_disposition(media.content_type, name)
    if short and name is not None and len(disposition) > _MAX_DISPOSITION_CHARS:
        return content_disposition(media.content_type, name[-_SHORT_NAME_CHARS:])
    return disposition


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A response before its body: `body` says whether one follows, `byte_range` which part (None: all of it)."""

    status: int
    headers: dict[str, str]
    body: bool = True
    byte_range: ByteRange | None = None


def decide(
    method: str, asked: Mapping[str, str], representation: Representation, *, max_age_s: int, ranges: bool = True
) -> Decision:
    """Decide status and headers; raises PreconditionFailedError (412) and RangeNotSatisfiableError (416)."""
    etag, modified_ts, size_bytes = representation.etag, representation.modified_ts, representation.size_bytes
    headers = _cache_headers(etag, modified_ts, max_age_s)
    check_preconditions(asked, etag=etag, modified_ts=modified_ts)
    if is_not_modified(asked, etag=etag, modified_ts=modified_ts):
        return Decision(status=304, headers=headers, body=False)
    headers |= {"Content-Type": representation.content_type, "Content-Disposition": representation.disposition}
    byte_range = None
    if ranges:
        headers["Accept-Ranges"] = "bytes"
        ranged = method == "GET" and "Range" in asked  # RFC 9110: Range is for GET alone
        if ranged and range_applies(asked, etag=etag, modified_ts=modified_ts):
            byte_range = parse_range(asked["Range"], size_bytes)
    if byte_range is not None:
        headers["Content-Range"] = f"bytes {byte_range.offset}-{byte_range.last}/{size_bytes}"
    return Decision(
        status=200 if byte_range is None else 206, headers=headers, body=method != "HEAD", byte_range=byte_range
    )


def _cache_headers(etag: str, modified_ts: int, max_age_s: int) -> dict[str, str]:
    """Say how long and by which tag a client may keep media, which never changes."""
    return {
        "ETag": etag,
        "Last-Modified": http_date(modified_ts),
        "Cache-Control": f"private, max-age={max_age_s}, immutable",
    }


def may_be_teed(request: web.Request) -> bool:
    """Return whether content that is only arriving can answer: not a part of it, and no question about it."""
    return request.method == "GET" and _ABOUT_STORED.isdisjoint(request.headers)


async def send_media(
    request: web.Request, find: Find, *, file_name: str | None = None, multipart: bool = False
) -> web.StreamResponse:
    """Find and send; when S3 has lost the bytes, find again what was fetched or rendered anew."""
    send = partial(_send, request, file_name=file_name, multipart=multipart)
    for _ in range(_ATTEMPTS - 1):
        try:
            return await send(await find())
        except ContentLostError:
            continue
    return await send(await find())


async def _send(
    request: web.Request, found: FoundMedia | TeeView, *, file_name: str | None, multipart: bool
) -> web.StreamResponse:
    if isinstance(found, TeeView):
        return await _send_teed(request, found, file_name)
    config = request.app[SETTINGS].downloads
    representation = Representation.of(found, file_name, short=multipart)
    decision = decide(request.method, request.headers, representation, max_age_s=config.max_age_s, ranges=not multipart)
    headers, frame = decision.headers, NO_FRAME
    if multipart and decision.status != 304:  # noqa: PLR2004 - Not Modified has no body to frame
        frame = _frame(representation, headers)
    byte_range = decision.byte_range
    size_bytes = representation.size_bytes if byte_range is None else byte_range.size_bytes
    if not decision.body:
        if decision.status != 304:  # noqa: PLR2004 - as above
            headers["Content-Length"] = str(len(frame.head) + size_bytes + len(frame.tail))
        return web.Response(status=decision.status, headers=headers)
    if not multipart and (config.redirects.enabled or config.accel_redirect is not None):
        handed = await hand_over(request, found, headers, size_bytes, ranged=byte_range is not None)
        if handed is not None:
            return handed
    return await send_bytes(
        request,
        request.app[ACCESS].open(found, byte_range),
        size_bytes=size_bytes,
        status=decision.status,
        headers=headers,
        idle_timeout_ms=config.idle_timeout_ms,
        frame=frame,
    )


def _frame(representation: Representation, headers: dict[str, str]) -> Frame:
    """Make the two parts around the bytes: metadata, of which there are none yet, and the file."""
    boundary = new_boundary()
    headers["Content-Type"] = f"multipart/mixed; boundary={boundary}"
    head = mixed_head(boundary, representation.content_type, representation.disposition)
    return Frame(head, mixed_tail(boundary))


async def _send_teed(request: web.Request, tee: TeeView, file_name: str | None) -> web.StreamResponse:
    config, media = request.app[SETTINGS].downloads, tee.media
    headers = _cache_headers(media_etag(media), media.created_ts, config.max_age_s)
    headers |= {
        "Content-Type": media.content_type,
        "Content-Disposition": media_disposition(media, file_name),
        "Accept-Ranges": "bytes",
    }
    return await send_arriving(
        request, tee, size_bytes=tee.size_bytes, headers=headers, idle_timeout_ms=config.idle_timeout_ms
    )
