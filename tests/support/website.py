"""Somebody's website on loopback, over plain HTTP, whose pages a test writes."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True)
class Given:
    """What a path answers."""

    body: bytes
    content_type: str | None = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Website:
    """Serves what it was given, and notes who asked for what."""

    url: str = ""
    pages: dict[str, Given] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    hold: asyncio.Event | None = None

    def page(self, path: str, html: str, **more: object) -> str:
        """Put a page somewhere; gives its URL."""
        self.pages[path] = Given(html.encode(), **more)  # type: ignore[arg-type]
        return self.url + path

    def file(self, path: str, body: bytes, content_type: str | None, **more: object) -> str:
        """Put a file somewhere; gives its URL."""
        self.pages[path] = Given(body, content_type, **more)  # type: ignore[arg-type]
        return self.url + path

    def redirect(self, path: str, location: str) -> str:
        """Send readers elsewhere; gives the URL."""
        self.pages[path] = Given(b"", None, 302, {"Location": location})
        return self.url + path

    def zipped(self, path: str, html: str) -> str:
        """Put a page somewhere that is compressed whoever asks; gives its URL."""
        self.pages[path] = Given(gzip.compress(html.encode()), "text/html", headers={"Content-Encoding": "gzip"})
        return self.url + path

    def times(self, path: str) -> int:
        """Count how often a path was asked for."""
        return sum(asked == path for asked, _ in self.asked)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.raw_path, dict(request.headers)))
        if self.hold is not None:
            await self.hold.wait()
        given = self.pages.get(request.raw_path)
        if given is None:
            return web.Response(status=404, text="not here")
        headers = dict(given.headers)
        if given.content_type is not None:
            headers["Content-Type"] = given.content_type
        response = web.StreamResponse(status=given.status, headers=headers)
        response.content_length = len(given.body)
        await response.prepare(request)
        await response.write(given.body)
        return response


@asynccontextmanager
async def website() -> AsyncIterator[Website]:
    """Run one."""
    site, app = Website(), web.Application()
    app.router.add_route("*", "/{path:.*}", site.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()
