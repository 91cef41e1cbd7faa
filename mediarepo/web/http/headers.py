"""Conditional requests, byte ranges (RFC 9110, sections 13 and 14), headers of every response, the request body."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from types import MappingProxyType

import aiohttp
from aiohttp import HttpVersion11, web

from mediarepo.errors import BadRequestError, PreconditionFailedError, RangeNotSatisfiableError
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.declared import LAST_TS
from mediarepo.model.media import Media, ThumbnailSpec

CORS = MappingProxyType(
    {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": (
            "X-Requested-With, Content-Type, Authorization, Date, Range, If-Range, If-Match, "
            "If-None-Match, If-Modified-Since, If-Unmodified-Since"
        ),
        "Access-Control-Expose-Headers": (
            "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Last-Modified, Retry-After"
        ),
    }
)
PREFLIGHT = MappingProxyType({"Access-Control-Max-Age": "86400"})

EVERY_RESPONSE = MappingProxyType(
    {
        **CORS,
        "Content-Security-Policy": (
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
            "style-src 'unsafe-inline'; media-src 'self'; object-src 'self';"
        ),
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Referrer-Policy": "no-referrer",
        "Server": "mediarepo",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex, nofollow, noarchive, noimageindex",
    }
)
"""Cross-origin access, and the spec's defences against content that turns out to be a program."""


_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def expect_later(_request: web.Request) -> None:
    """Answer `Expect: 100-continue` when the body is read, not before, so that a refusal can come first."""


class RequestBody:
    """The body of one request; see `mediarepo.services.upload_parts.Body`."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        expects = request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11
        self._asked_for = not expects

    @property
    def declared_bytes(self) -> int | None:
        """The Content-Length; None for a chunked body."""
        if not self._request.body_exists:
            return 0
        return self._request.content_length

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end. Raises BadRequestError when the connection breaks."""
        if not self._asked_for:
            await self._ask()
        try:
            return await self._request.content.readany()
        except (aiohttp.ClientError, web.RequestPayloadError, ConnectionError) as exc:
            raise BadRequestError("the upload broke off") from exc

    async def _ask(self) -> None:
        self._asked_for = True
        writer = self._request.writer
        await writer.write(_CONTINUE)
        writer.output_size = 0


_ENTITY_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_MAX_HEADER_CHARS = 8192


def media_etag(media: Media) -> str:
    """Return the strong entity tag of media, made from address and revision: constant, and known without S3."""
    return _etag(f"{media.mxc}#{media.revision}")


def thumbnail_etag(media: Media, spec: ThumbnailSpec) -> str:
    """Return the strong entity tag of a thumbnail."""
    return _etag(f"{media.mxc}#{media.revision}#{spec.width}x{spec.height}{spec.method}{spec.animated}")


def _etag(text: str) -> str:
    return f'"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"'


def http_date(ms: int) -> str:
    """Format a time (ms since 1970) as HTTP date, in whole seconds, from 1970 to the year 9999."""
    return _http_date(min(max(ms // 1000, 0), LAST_TS // 1000))


@lru_cache(maxsize=4096)
def _http_date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, tz=UTC), usegmt=True)


def check_preconditions(headers: Mapping[str, str], *, etag: str, modified_ts: int) -> None:
    """Refuse with PreconditionFailedError what If-Match, or else If-Unmodified-Since, does not want; ms."""
    match = headers.get("If-Match")
    if match is not None:
        holds = matches_any(match, etag, strongly=True)
    else:
        since = _parse_date(headers.get("If-Unmodified-Since"))
        holds = since is None or modified_ts // 1000 <= since
    if not holds:
        raise PreconditionFailedError("the media is not the one that the request is about")


def is_not_modified(headers: Mapping[str, str], *, etag: str, modified_ts: int) -> bool:
    """Return whether the client's cached copy is current (RFC 9110, section 13); `modified_ts` in ms."""
    none_match = headers.get("If-None-Match")
    if none_match is not None:
        return matches_any(none_match, etag)
    since = _parse_date(headers.get("If-Modified-Since"))
    return since is not None and modified_ts // 1000 <= since


def matches_any(header: str, etag: str, *, strongly: bool = False) -> bool:
    """Compare a list of entity tags, or `*`, with one: weak tags never match strongly (RFC 9110, section 8.8.3.2)."""
    if header.strip() == "*":
        return True
    if len(header) > _MAX_HEADER_CHARS:
        return False
    return any(tag == etag and not (weak and strongly) for weak, tag in _ENTITY_TAG.findall(header))


def range_applies(headers: Mapping[str, str], *, etag: str, modified_ts: int) -> bool:
    """Return whether a Range header counts: If-Range is absent, or names exactly this representation."""
    if_range = headers.get("If-Range")
    if if_range is None:
        return True
    if if_range.startswith(('"', "W/")):
        return if_range.strip() == etag
    return _parse_date(if_range) == modified_ts // 1000


def _parse_date(text: str | None) -> int | None:
    if text is None or len(text) > 64:  # noqa: PLR2004 - no HTTP date is longer
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


_SINGLE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
_MAX_RANGE_CHARS = 64


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """Parse a Range header (RFC 9110 section 14.2) for content of `size_bytes`; None: send everything.

    Several ranges, other units and invalid values are ignored, as the RFC allows. Raises RangeNotSatisfiableError when
    the range begins after the last byte.
    """
    if header is None or len(header) > _MAX_RANGE_CHARS:
        return None
    match = _SINGLE.fullmatch(header)
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size_bytes)
    if last and int(last) < int(first):
        return None
    if int(first) >= size_bytes:
        raise RangeNotSatisfiableError("the range begins after the last byte", size_bytes=size_bytes)
    end = min(int(last) + 1, size_bytes) if last else size_bytes
    return ByteRange(int(first), end - int(first))


def _suffix(wanted: int, size_bytes: int) -> ByteRange | None:
    if wanted == 0:
        raise RangeNotSatisfiableError("the range holds no byte", size_bytes=size_bytes)
    if size_bytes == 0:
        return None
    return ByteRange(max(size_bytes - wanted, 0), min(wanted, size_bytes))
