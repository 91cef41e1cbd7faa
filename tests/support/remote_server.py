"""Another server with media of its own, over TLS on loopback; it answers as told and remembers what it was asked."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tests.support.ports import free_port

BOUNDARY = "gc0p4Jq0M2Yt08jU534c0p"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def mixed(
    data: bytes,
    *,
    content_type: str = "image/png",
    disposition: str | None = "inline; filename=a.png",
    closing: bytes = b"--\r\n",
    boundary: str = BOUNDARY,
) -> bytes:
    """Write a file as the federation endpoint does."""
    headers = f"Content-Type: {content_type}\r\n"
    if disposition is not None:
        headers += f"Content-Disposition: {disposition}\r\n"
    head = f"\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n{headers}\r\n"
    return head.encode() + data + f"\r\n--{boundary}".encode() + closing


def serving_file(data: bytes, **arguments: object) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        body = mixed(data, **arguments)  # type: ignore[arg-type]
        return web.Response(body=body, headers={"Content-Type": f"multipart/mixed; boundary={BOUNDARY}"})

    return handler


def refusing(status: int, errcode: str | None, text: str = "404 page not found") -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        if errcode is None:
            return web.Response(status=status, text=text)
        body = json.dumps({"errcode": errcode, "error": "so there"}).encode()
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json"})

    return handler


def _let_go() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class RemoteServer:
    """`federation` and `legacy` answer by media id; what they do not know is 404 M_NOT_FOUND."""

    port: int = 0
    federation: dict[str, Handler] = field(default_factory=dict)
    legacy: dict[str, Handler] = field(default_factory=dict)
    elsewhere: Handler | None = None
    requests: list[web.Request] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=_let_go)
    """Nothing is answered while it is not set."""

    @property
    def server_name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def asked(self, part: str = "") -> list[str]:
        """Which paths were asked for, with their queries."""
        return [request.raw_path for request in self.requests if part in request.raw_path]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await self.held.wait()
        media_id = request.path.rpartition("/")[2]
        known = self.federation if "/federation/" in request.path else self.legacy
        if "/media/" not in request.path and self.elsewhere is not None:
            return await self.elsewhere(request)
        return await known.get(media_id, refusing(404, "M_NOT_FOUND"))(request)


@asynccontextmanager
async def remote_server(certificate: Path) -> AsyncIterator[RemoteServer]:
    """Serve with a certificate and key that stand in one file."""
    server = RemoteServer()
    app = web.Application(client_max_size=2**40)
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", free_port(), ssl_context=context).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await asyncio.shield(runner.cleanup())
