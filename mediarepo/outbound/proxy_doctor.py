"""Checks the reverse proxy from outside: which routes reach mediarepo, and what happens to requests on their way."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from mediarepo.model.findings import Finding, Subject, failure_text
from mediarepo.outbound.client import tls_context
from mediarepo.outbound.media_round_trip import MediaRoundTrip
from mediarepo.outbound.probe import PROBE_HEADER, Arrival, make_probe

_TIMEOUT_S = 15
_EARLY_S = 5
_TOO_LARGE = 413
_ORIGIN = "https://app.mediarepo-doctor.invalid"
_FORGED_ADDRESS = "203.0.113.77"  # RFC 5737: nobody's
_FORGED_HOST = "forged.mediarepo-doctor.invalid"
_TOKEN = "Bearer mediarepo-doctor"  # noqa: S105 - it must be no secret


@dataclass(frozen=True, slots=True)
class Route:
    """A path that must lead to mediarepo; `name` is what an operator looks for in the proxy's configuration."""

    name: str
    path: str
    method: str = "GET"


def client_routes(server_name: str) -> list[Route]:
    """List one path of each kind that clients use; none of them changes anything."""
    media = f"{quote(server_name, safe=':[]')}/mediarepo-doctor"
    return [
        Route("/_matrix/client/v1/media/config", "/_matrix/client/v1/media/config"),
        Route("/_matrix/client/v1/media/download", f"/_matrix/client/v1/media/download/{media}"),
        Route("/_matrix/client/v1/media/thumbnail", f"/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32"),
        Route("/_matrix/client/v1/media/preview_url", "/_matrix/client/v1/media/preview_url?url=about:blank"),
        Route("/_matrix/media/v3/config", "/_matrix/media/v3/config"),
        Route("/_matrix/media/v3/upload", "/_matrix/media/v3/upload", "POST"),
        Route("/_matrix/media/v3/upload (PUT)", f"/_matrix/media/v3/upload/{media}", "PUT"),
        Route("/_matrix/media/v1/create", "/_matrix/media/v1/create", "POST"),
        Route("/_matrix/media/v3/download", f"/_matrix/media/v3/download/{media}"),
        Route("/_matrix/media/r0/download", f"/_matrix/media/r0/download/{media}"),
        Route("/_matrix/media/v1/thumbnail", f"/_matrix/media/v1/thumbnail/{media}?width=32&height=32"),
        Route("/_matrix/media/v3/preview_url", "/_matrix/media/v3/preview_url?url=about:blank"),
    ]


FEDERATION_ROUTES = (
    Route("/_matrix/federation/v1/media/download", "/_matrix/federation/v1/media/download/mediarepo-doctor"),
    Route(
        "/_matrix/federation/v1/media/thumbnail",
        "/_matrix/federation/v1/media/thumbnail/mediarepo-doctor?width=32&height=32",
    ),
)
PRIVATE_ROUTES = ("/metrics", "/health/ready")
"""What operators ask for, and nobody else."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response through the proxy; `arrival` is None when it is not from this installation's mediarepo."""

    status: int
    headers: Mapping[str, str]
    arrival: Arrival | None

    @property
    def answered_by(self) -> str:
        """Describe who answered instead."""
        server = self.headers.get("Server", "an unknown server")
        return f"{self.status} of {server}"


class ProxyDoctor:
    """Asks for `public_url` as clients do, and for `federation_url` as other servers do; open it with `async with`.

    With a user's token, a file is uploaded, read in several ways, and deleted if the user is an admin.
    """

    def __init__(
        self,
        public_url: str,
        federation_url: str,
        *,
        server_name: str,
        max_upload_bytes: int,
        key: bytes,
        ca_file: str | None = None,
        token: str | None = None,
    ) -> None:
        self._public, self._federation = public_url.rstrip("/"), federation_url.rstrip("/")
        self._server_name, self._max_upload_bytes, self._key = server_name, max_upload_bytes, key
        self._tls: ssl.SSLContext = tls_context(ca_file)
        self._subject = Subject(f"proxy {self._public}")
        self._token = token

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=False, auto_decompress=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def examine(self) -> AsyncIterator[Finding]:
        """Check one thing after another; a proxy that does not answer gives one finding for each address."""
        async for finding in self._requests():
            yield finding
        if self._token is not None:
            async for finding in MediaRoundTrip(self._session, self._public, self._tls, self._token).examine():
                yield finding

    async def _requests(self) -> AsyncIterator[Finding]:
        reached: Reply | None = None
        for route in client_routes(self._server_name):
            finding, reply = await self._route(self._subject, self._public, route)
            yield finding
            if reply is None:
                break
            if route.method == "GET" and reply.arrival is not None:
                reached = reached or reply
        federation = Subject(f"proxy {self._federation} (federation)")
        for route in FEDERATION_ROUTES:
            finding, reply = await self._route(federation, self._federation, route)
            yield finding
            if reply is None:
                break
        if reached is None or reached.arrival is None:
            return
        for finding in self._forwarded(reached.arrival):
            yield finding
        checks: list[Callable[[], Awaitable[Finding]]] = [self._forged, self._escapes, self._cors, self._head]
        checks += [self._preflight, self._large_body, *(partial(self._private, path) for path in PRIVATE_ROUTES)]
        for check in checks:
            try:
                yield await check()
            except (aiohttp.ClientError, OSError, TimeoutError) as exc:
                yield self._subject.problem("connection", f"a request failed: {failure_text(exc)}", "look into its log")

    async def _ask(self, base: str, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Reply:
        sent = {PROBE_HEADER: make_probe(self._key, int(time.time())), "Authorization": _TOKEN, **(headers or {})}
        url = URL(base + path, encoded=True)
        async with self._session.request(method, url, headers=sent, allow_redirects=False, ssl=self._tls) as response:
            said = response.headers.get(PROBE_HEADER)
            arrival = None if said is None else Arrival.from_header(said)
            return Reply(response.status, dict(response.headers), arrival)

    async def _route(self, subject: Subject, base: str, route: Route) -> tuple[Finding, Reply | None]:
        try:
            reply = await self._ask(base, route.path, route.method)
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            advice = "correct the address, its certificate, or start the proxy"
            return subject.problem("connection", f"{base} cannot be reached: {failure_text(exc)}", advice), None
        name = f"route {route.name}"
        if reply.arrival is None:
            prefix = "/".join(route.path.split("/")[: 3 if route.path.startswith("/_matrix/media") else 5]) + "/"
            advice = f"route {prefix} to mediarepo (docs/proxies.md); the server must run with this configuration"
            return subject.problem(name, f"does not reach mediarepo: {reply.answered_by}", advice), reply
        return subject.ok(name, "reaches mediarepo"), reply

    def _forwarded(self, arrival: Arrival) -> list[Finding]:
        subject, found = self._subject, []
        if arrival.homeserver is None:
            host = urlsplit(self._public).netloc
            advice = f"add {host} to the homeserver's `hosts`, or let the proxy forward Host (or X-Forwarded-Host)"
            found.append(subject.problem("host", f"no homeserver answers to the Host that arrives for {host}", advice))
        elif arrival.homeserver != self._server_name:
            detail = f"requests arrive for {arrival.homeserver} instead of {self._server_name}"
            found.append(subject.problem("host", detail, "correct `hosts`, or what the proxy sends as Host"))
        else:
            found.append(subject.ok("host", f"is that of {arrival.homeserver}"))
        if not arrival.trusted:
            advice = f"add {arrival.client} to listen.trusted_proxies: all clients share one limit otherwise"
            found.append(subject.problem("client address", f"the proxy at {arrival.client} is not trusted", advice))
        elif not arrival.forwarded_for:
            advice = "let the proxy send X-Forwarded-For: all clients share one limit otherwise"
            found.append(subject.warning("client address", "the proxy does not tell the client's address", advice))
        else:
            found.append(subject.ok("client address", f"arrives as {arrival.client}"))
        return found

    async def _forged(self) -> Finding:
        """Look whether a client can choose its address or its homeserver."""
        forged = {"X-Forwarded-For": _FORGED_ADDRESS, "X-Forwarded-Host": _FORGED_HOST}
        arrival = (await self._ask(self._public, "/_matrix/media/v3/config", headers=forged)).arrival
        if arrival is None:
            return self._subject.warning("forged headers", "the request did not arrive", "")
        if arrival.client == _FORGED_ADDRESS:
            advice = "let the proxy overwrite or extend X-Forwarded-For: a client dodges all limits otherwise"
            return self._subject.problem("forged headers", "a client can choose its own address", advice)
        if arrival.homeserver is None:
            advice = "let the proxy overwrite X-Forwarded-Host with the Host that it received"
            return self._subject.problem("forged headers", "a client can choose X-Forwarded-Host", advice)
        return self._subject.ok("forged headers", "the proxy overwrites X-Forwarded-For and X-Forwarded-Host")

    async def _escapes(self) -> Finding:
        path = f"/_matrix/client/v1/media/download/{quote(self._server_name, safe=':[]')}/mediarepo-doctor/a%2Fb%20c"
        arrival = (await self._ask(self._public, path)).arrival
        if arrival is None or arrival.path != path:
            arrived = "does not arrive" if arrival is None else f"arrives as {arrival.path}"
            advice = "forward the path as it was sent (nginx: proxy_pass without a path): other servers sign it"
            return self._subject.problem("escapes", f"%2F in a path {arrived}", advice)
        return self._subject.ok("escapes", "%2F in a path arrives as it was sent")

    async def _cors(self) -> Finding:
        path = f"/_matrix/client/v1/media/download/{quote(self._server_name, safe=':[]')}/mediarepo-doctor"
        reply = await self._ask(self._public, path, headers={"Origin": _ORIGIN})
        allowed = reply.headers.get("Access-Control-Allow-Origin")
        if allowed != "*":
            advice = "do not remove or add CORS headers in the proxy: web clients show only `network error`"
            return self._subject.problem("CORS", f"Access-Control-Allow-Origin of an error is {allowed}", advice)
        return self._subject.ok("CORS", "errors can be read by web clients")

    async def _head(self) -> Finding:
        reply = await self._ask(self._public, "/_matrix/media/v3/config", "HEAD")
        if reply.arrival is None:
            advice = "let the proxy forward HEAD (and GET, POST, PUT, OPTIONS)"
            return self._subject.problem("HEAD", f"does not arrive: {reply.answered_by}", advice)
        return self._subject.ok("HEAD", "arrives")

    async def _preflight(self) -> Finding:
        asked = {"Origin": _ORIGIN, "Access-Control-Request-Method": "POST"}
        reply = await self._ask(self._public, "/_matrix/media/v3/upload", "OPTIONS", asked)
        if reply.arrival is None and reply.headers.get("Access-Control-Allow-Origin") is None:
            advice = "let the proxy forward OPTIONS: browsers ask before they upload"
            return self._subject.problem("preflight", f"OPTIONS does not arrive: {reply.answered_by}", advice)
        return self._subject.ok("preflight", "browsers may upload")

    async def _large_body(self) -> Finding:
        """Announce the largest upload and send its beginning: mediarepo refuses the token before it has all."""
        try:
            async with asyncio.timeout(_EARLY_S):
                status, ours = await self._announce(self._max_upload_bytes)
        except TimeoutError:
            advice = "stream request bodies (nginx: proxy_request_buffering off): uploads fill the proxy's disk"
            return self._subject.warning("body", "the proxy waits for whole uploads before it forwards them", advice)
        except (OSError, asyncio.IncompleteReadError, ValueError) as exc:
            advice = "look into the proxy's log: an upload was cut off"
            return self._subject.problem("body", f"an upload broke off: {failure_text(exc)}", advice)
        if status == _TOO_LARGE and not ours:
            advice = f"allow {self._max_upload_bytes} bytes or more there (nginx: client_max_body_size 0)"
            return self._subject.problem("body", "the proxy refuses uploads as too large (413)", advice)
        if not ours:
            return self._subject.problem("body", f"an upload is answered {status} by another server", "see the routes")
        return self._subject.ok("body", f"uploads of {self._max_upload_bytes} bytes are forwarded as they come")

    async def _announce(self, size_bytes: int) -> tuple[int, bool]:
        parts = urlsplit(self._public)
        tls = self._tls if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls)
        try:
            head = (
                f"POST {parts.path}/_matrix/media/v3/upload HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                f"Authorization: {_TOKEN}\r\nContent-Type: image/png\r\nContent-Length: {size_bytes}\r\n"
                f"{PROBE_HEADER}: {make_probe(self._key, int(time.time()))}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode("ascii") + bytes(min(size_bytes, 1024)))
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        finally:
            writer.close()
        return int(lines[0].split()[1]), any(line.lower().startswith(PROBE_HEADER.lower()) for line in lines)

    async def _private(self, path: str) -> Finding:
        reply = await self._ask(self._public, path)
        if reply.arrival is not None:
            advice = "route the three media prefixes only, or set listen.metrics_address"
            return self._subject.warning("private paths", f"{path} can be read by everybody", advice)
        return self._subject.ok("private paths", f"{path} cannot be reached from outside")
