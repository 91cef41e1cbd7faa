"""The outbound HTTP client for federation: addresses checked, times and sizes bounded, no proxy, no cookies."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from mediarepo.config.federation import OutboundConfig
from mediarepo.model.concurrency import Admission
from mediarepo.outbound.errors import OutboundError, OutboundReason, Target, Timeouts, connection_error_text
from mediarepo.outbound.ssrf_guard import AddressPolicy, GuardedResolver, Lookup, SystemLookup
from mediarepo.outbound.urls import check_request_target, join_reference, literal_address, parse_url


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return a context that verifies certificates and names, with the system's authorities or those of a file.

    The same on every Python: from 3.13 on, the default refuses certificates of authorities that leave out what RFC 5280
    asks for (VERIFY_X509_STRICT), as private ones often do; OpenSSL, browsers and homeservers accept them. Raises
    OSError, which ssl.SSLError is, for a file that cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


_MAX_NESTING = 50


class OutboundResponse:
    """Status, headers, and an unread body; `declared_bytes` is its Content-Length."""

    def __init__(self, response: aiohttp.ClientResponse, host: str, *, timeouts: Timeouts, until: float) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)
        self.declared_bytes = response.content_length
        self._response = response
        self._host = host
        self._idle_s = timeouts.idle_ms / 1000
        self._until = until

    def check_encoding(self) -> None:
        """Check that the body has no content encoding. Raises OutboundError."""
        encodings = ",".join(self._response.headers.getall("Content-Encoding", []))
        if any(one.strip().lower() not in {"", "identity"} for one in encodings.split(",")):
            raise OutboundError(OutboundReason.ENCODED, f"{self._host} sends a Content-Encoding that was not requested")

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end. Raises OutboundError when the connection breaks or is too slow."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:  # bytes that are there already would be given without a look at the clock
            raise self._too_slow()
        try:
            async with asyncio.timeout_at(min(now + self._idle_s, self._until)):
                return await self._response.content.readany()
        except TimeoutError as exc:
            raise self._too_slow() from exc
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            raise OutboundError(
                OutboundReason.BROKEN_OFF, f"{self._host} closed the connection within its response"
            ) from exc

    def _too_slow(self) -> OutboundError:
        return OutboundError(OutboundReason.TOO_SLOW, f"{self._host} sends its response too slowly")

    async def read_all(self, max_bytes: int) -> bytes:
        """Read the whole body. Raises OutboundError when it is too large."""
        self._check_size(self.declared_bytes or 0, max_bytes)
        text = bytearray()
        while piece := await self.read():
            text += piece
            self._check_size(len(text), max_bytes)
        return bytes(text)

    def _check_size(self, size_bytes: int, max_bytes: int) -> None:
        if size_bytes > max_bytes:
            raise OutboundError(OutboundReason.TOO_LARGE, f"{self._host} answers more than {max_bytes} bytes")

    async def read_json(self, max_bytes: int) -> dict[str, object]:
        """Read the whole body as a JSON object of bounded depth.

        Raises OutboundError with NOT_JSON when it is something else.
        """
        text = await self.read_all(max_bytes)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise OutboundError(OutboundReason.NOT_JSON, f"{self._host} does not respond with JSON") from exc
        if not isinstance(value, dict) or _nesting(value) > _MAX_NESTING:
            raise OutboundError(OutboundReason.NOT_JSON, f"{self._host} does not respond with a plain JSON object")
        return value


def _nesting(value: object) -> int:
    """Count how deep lists and objects lie within each other, without recursion."""
    deepest, open_values = 0, [(value, 1)]
    while open_values:
        found, depth = open_values.pop()
        inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        deepest = max(deepest, depth)
        if depth > _MAX_NESTING:
            break
        open_values += [(one, depth + 1) for one in inner if isinstance(one, dict | list)]
    return deepest


__all__ = ["Outbound", "OutboundResponse"]

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_LINE_BYTES = 16 * 1024
_HTTPS_ONLY = frozenset({"https"})
_HARMLESS = {"accept", "accept-language", "user-agent"}
"""Headers that any server may see."""


class Outbound:
    """The HTTP client for other servers of the federation; web pages have `web_client`."""

    def __init__(self, config: OutboundConfig, *, lookup: Lookup | None = None) -> None:
        self._config = config
        self._own_lookup = SystemLookup() if lookup is None else None
        rules = AddressPolicy(allow=lambda: config.allow_networks, deny=lambda: config.deny_networks)
        self._resolver = GuardedResolver(
            rules, lookup or self._own_lookup or SystemLookup(), config.resolve_timeout_ms / 1000
        )
        self._tls = tls_context(config.ca_file)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.places = Admission("wait for other servers", places=config.max_connections, share=4)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            limit=0,  # counted before, in fair shares
            ssl=self._tls,
            happy_eyeballs_delay=0.25,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            read_bufsize=64 * 1024,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        if self._own_lookup is not None:
            self._own_lookup.close()

    async def address(self, host: str, port: int) -> str:
        """Return the first address and port of a host. Raises OutboundError when there is none."""
        self._resolver.check_literal(host)
        found = host if literal_address(host) is not None else (await self._resolver.resolve(host, port))[0]["host"]
        return f"{found} {port}"

    @asynccontextmanager
    async def ask(
        self, target: Target, request_target: str, *, headers: Mapping[str, str], timeouts: Timeouts
    ) -> AsyncIterator[OutboundResponse]:
        """GET a request target over TLS, sent byte for byte as given; redirects are not followed."""
        check_request_target(request_target)
        self._resolver.check_literal(target.host)
        host = f"[{target.host}]" if ":" in target.host else target.host
        url = URL(f"https://{host}:{target.port}{request_target}", encoded=True)
        sent = {**headers, "Host": target.host_header}
        until = _loop_time() + timeouts.total_ms / 1000
        async with AsyncExitStack() as stack:
            answer = await self._sent(stack, url, sent, timeouts, until, tls_name=target.tls_name)
            answer.check_encoding()
            yield answer

    @asynccontextmanager
    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        schemes: frozenset[str] = _HTTPS_ONLY,
    ) -> AsyncIterator[OutboundResponse]:
        """GET a URL, following redirects; each URL is checked like the first.

        Once a redirect leads to another server, only harmless headers are sent, even if a further one leads back.
        Raises OutboundError when a URL is refused, the server does not answer, or it redirects too often.
        """
        until = _loop_time() + timeouts.total_ms / 1000
        first, sent = parse_url(url), headers
        for _ in range(self._config.max_redirects + 1):
            parsed = parse_url(url)
            if parsed.scheme not in schemes:
                raise OutboundError(OutboundReason.BAD_URL, f"{parsed.host} may not be requested over {parsed.scheme}")
            self._resolver.check_literal(parsed.host)
            if parsed.origin != first.origin:
                sent = {name: value for name, value in sent.items() if name.lower() in _HARMLESS}
            async with AsyncExitStack() as stack:
                answer = await self._sent(stack, parsed.url, sent, timeouts, until, tls_name=None)
                location = answer.headers.get("Location")
                if answer.status not in _REDIRECTS or location is None:
                    answer.check_encoding()
                    yield answer
                    return
                url = join_reference(url, location)
        raise OutboundError(OutboundReason.TOO_MANY_REDIRECTS, f"{first.host} redirects too often")

    async def _sent(
        self,
        stack: AsyncExitStack,
        url: URL,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        until: float,
        *,
        tls_name: str | None,
    ) -> OutboundResponse:
        if self._session is None:
            raise RuntimeError("the outbound client is not open")
        host = url.host or ""
        await stack.enter_async_context(self.places.enter())
        head_until = min(until, _loop_time() + (timeouts.connect_ms + timeouts.headers_ms) / 1000)
        request = self._session.get(
            url,
            headers={"Accept-Encoding": "identity", "User-Agent": "mediarepo", **headers},
            allow_redirects=False,
            server_hostname=tls_name,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_ms / 1000),
        )
        with connection_error_text(host):
            async with asyncio.timeout_at(head_until):
                response = await stack.enter_async_context(request)
        stack.callback(response.close)
        return OutboundResponse(response, host, timeouts=timeouts, until=until)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
