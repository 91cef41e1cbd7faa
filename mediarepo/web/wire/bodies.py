"""A request's body, read piece by piece."""

import aiohttp
from aiohttp import HttpVersion11, web

from mediarepo.errors import BadRequestError

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
