"""Serves the console: static files, and what they need to know of the homeserver.

The console has no powers of its own: it calls the admin API with the token that was entered. Its origin may also serve
users' media. Those are sandboxed (`mediarepo.web.http.headers`), so they cannot read the console's session, and scripts
are only accepted from the console's own folder, so a script that a user uploaded cannot be run in it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

from mediarepo.config.admin import ConsoleConfig
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.web.http.headers import CORS, matches_any
from mediarepo.web.proxies import TrustedProxies

PREFIX = "/_mediarepo/console"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}
_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the console."""

    body: bytes
    content_type: str
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """The console's pages, for the homeserver of each request."""

    config: ConsoleConfig
    tenants: Homeservers
    proxies: TrustedProxies
    files: Mapping[str, StaticFile]

    async def redirect(self, _request: web.Request) -> web.Response:
        """Redirect to the page, so that its relative links are right."""
        return web.Response(status=308, headers={"Location": f"{PREFIX}/"})

    async def file(self, request: web.Request) -> web.Response:
        """Send a file. Raises HTTPNotFound for any other name."""
        found = self.files.get(request.match_info.get("name") or "index.html")
        if found is None:
            raise web.HTTPNotFound
        return _response(request, found)

    async def site(self, request: web.Request) -> web.Response:
        """Send the homeserver's name, and the URL at which a browser signs in there."""
        tenant = self.tenants.by_host(self.proxies.host(request))
        name = None if tenant is None else tenant.server_name
        url = "" if name is None else self.config.homeserver_urls.get(name, "")
        return _response(request, _static(json.dumps({"server_name": name, "homeserver_url": url}), "json"))

    async def harden(self, request: web.Request, response: web.StreamResponse) -> None:
        """Replace the headers that media need: no other origin reads the console, and scripts may run in it."""
        for name in CORS:
            response.headers.popall(name, None)
        response.headers.update(_HEADERS)
        response.headers["Content-Security-Policy"] = self._policy(request)

    def _policy(self, request: web.Request) -> str:
        """Return the Content-Security-Policy: nothing but the console's own files, and requests to two origins."""
        host = self.proxies.host(request)
        own = f"{host}{PREFIX}/" if _HOST.fullmatch(host) else "'none'"
        tenant = self.tenants.by_host(host)
        homeserver = "" if tenant is None else self.config.homeserver_urls.get(tenant.server_name, "")
        return "; ".join(
            (
                "default-src 'none'",
                f"script-src {own}",
                f"style-src {own}",
                f"img-src {own} blob:",
                f"connect-src 'self' {homeserver}".rstrip(),
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                "require-trusted-types-for 'script'; trusted-types 'none'",
            )
        )


def add_console(parent: web.Application, config: ConsoleConfig, tenants: Homeservers, proxies: TrustedProxies) -> None:
    """Add the console below `PREFIX`, as an application whose responses have headers of their own."""
    console = Console(config=config, tenants=tenants, proxies=proxies, files=dict(_static_files()))
    app = web.Application()
    app.on_response_prepare.append(console.harden)
    app.router.add_get("", console.redirect)
    app.router.add_get("/", console.file)
    app.router.add_get("/site.json", console.site)
    app.router.add_get("/{name}", console.file)
    parent.add_subapp(PREFIX, app)


def _response(request: web.Request, found: StaticFile) -> web.Response:
    headers = {"Content-Type": found.content_type, "ETag": found.etag}
    if matches_any(request.headers.get("If-None-Match", ""), found.etag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.body, headers=headers)


def _static_files() -> Iterator[tuple[str, StaticFile]]:
    for entry in files("mediarepo.web.console").joinpath("static").iterdir():
        yield entry.name, _static(entry.read_text(encoding="utf-8"), entry.name.rpartition(".")[2])


def _static(text: str, kind: str) -> StaticFile:
    body = text.encode()
    return StaticFile(body, _TYPES[kind], f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"')
