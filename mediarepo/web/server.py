"""The HTTP server: its limits, and JSON errors even for malformed requests."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mediarepo.config.server import ListenConfig
from mediarepo.errors import BadRequestError
from mediarepo.web.error_responses import error_body
from mediarepo.web.http.headers import EVERY_RESPONSE
from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import IN_FLIGHT
from mediarepo.web.listening import accept_from

log = structlog.get_logger(__name__)

_MAX_LINE_BYTES = 256 * 1024
"""Long enough that an overlong file name is refused by name, not by the parser."""
_MAX_HEADER_BYTES = 64 * 1024
_READ_BYTES = 32 * 1024
"""Twice this, and one more piece, may lie unread per connection: what waiting uploads cost beside the budget."""
_LAST_WORDS_S = 1.0
"""How long connections may take to send what is finished, after all requests were drained."""


class _Protocol(RequestHandler):
    """One connection."""

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what the HTTP parser refused, with the headers and the JSON of every other refusal."""
        if status >= 500:  # noqa: PLR2004 - a failure of ours: aiohttp logs it
            return super().handle_error(request, status, exc, message)
        log.debug("malformed_request", status=status, reason=type(exc).__name__)  # its words quote the request
        error = BadRequestError("the request is not well-formed HTTP")
        response = json_response(error_body(error), status=status, headers=EVERY_RESPONSE)
        response.headers["Connection"] = "close"
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, handler: Any, protocol_arguments: dict[str, Any], **arguments: Any) -> None:  # noqa: ANN401 - as aiohttp has it
        super().__init__(handler, **arguments, **protocol_arguments)
        self._protocol_arguments = protocol_arguments

    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._protocol_arguments)


class _Runner(web.AppRunner):
    __slots__ = ("_arguments",)

    def __init__(self, app: web.Application, *, shutdown_timeout: float, **arguments: Any) -> None:  # noqa: ANN401 - as aiohttp has it
        super().__init__(app, shutdown_timeout=shutdown_timeout)
        self._arguments = arguments

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, self._arguments, request_factory=made.request_factory)


@asynccontextmanager
async def serving(
    app: web.Application, listeners: Sequence[socket.socket], config: ListenConfig, *, shared: bool = False
) -> AsyncIterator[None]:
    """Serve until left, then drain running requests; closes the sockets.

    `shared` says that other processes accept on the same sockets.
    """
    runner = _Runner(
        app,
        shutdown_timeout=_LAST_WORDS_S,
        access_log=None,
        auto_decompress=False,
        max_line_size=_MAX_LINE_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
        keepalive_timeout=75.0,
        read_bufsize=_READ_BYTES,
    )
    await runner.setup()
    try:
        for listener in listeners:
            await accept_from(runner, listener, shared=shared)
        yield
        for site in list(runner.sites):
            await site.stop()
        await app[IN_FLIGHT].drain(config.shutdown_timeout_ms / 1000)
    finally:
        await runner.cleanup()
