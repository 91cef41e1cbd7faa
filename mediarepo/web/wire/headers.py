"""Headers of every response, and the request body."""

from types import MappingProxyType

import aiohttp
from aiohttp import HttpVersion11, web

from mediarepo.errors import BadRequestError

CORS = MappingProxyType(
    {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": (
            "X-Requested-With, Content-Type, Authorization, Date, Range, If-Range, If-None-Match, If-Modified-Since"
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
    """Answer `Expect: 100-continue` not now but when the body is wanted, so that a refusal can come first."""


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
        """Wait for the next bytes; empty at the end."""
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
