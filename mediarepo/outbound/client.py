"""GET from other people's servers: each address checked, each wait and each answer bounded, no proxy, no cookies."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import aiohttp
from yarl import URL

from mediarepo.config.federation import OutboundConfig
from mediarepo.model.admission import Admission
from mediarepo.outbound.addresses import AddressRules
from mediarepo.outbound.answers import Answer
from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.failures import explained
from mediarepo.outbound.resolving import GuardedResolver, Lookup, SystemLookup
from mediarepo.outbound.targets import Patience, Target
from mediarepo.outbound.trust import tls_context
from mediarepo.outbound.urls import address_of, check_request_target, joined, parse_url

__all__ = ["Answer", "Outbound"]

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_LINE_BYTES = 16 * 1024
_HTTPS_ONLY = frozenset({"https"})
_HARMLESS = {"accept", "accept-language", "user-agent"}
"""Headers that any server may see."""


class Outbound:
    """The one door; servers of the federation are asked through it, pages through `web_client`."""

    def __init__(self, config: OutboundConfig, *, lookup: Lookup | None = None) -> None:
        self._config = config
        self._own_lookup = SystemLookup() if lookup is None else None
        rules = AddressRules(allow=config.allow_networks, deny=config.deny_networks)
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
        """Find the first address and port that a host would be asked at; OutboundError when there is none."""
        self._resolver.check_literal(host)
        found = host if address_of(host) is not None else (await self._resolver.resolve(host, port))[0]["host"]
        return f"{found} {port}"

    @asynccontextmanager
    async def ask(
        self, target: Target, request_target: str, *, headers: Mapping[str, str], patience: Patience
    ) -> AsyncIterator[Answer]:
        """GET a request target, sent byte for byte as given, over TLS; redirects are answers like others."""
        check_request_target(request_target)
        self._resolver.check_literal(target.host)
        host = f"[{target.host}]" if ":" in target.host else target.host
        url = URL(f"https://{host}:{target.port}{request_target}", encoded=True)
        sent = {**headers, "Host": target.host_header}
        until = _loop_time() + patience.total_ms / 1000
        async with AsyncExitStack() as stack:
            answer = await self._sent(stack, url, sent, patience, until, tls_name=target.tls_name)
            answer.check_encoding()
            yield answer

    @asynccontextmanager
    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        patience: Patience,
        schemes: frozenset[str] = _HTTPS_ONLY,
    ) -> AsyncIterator[Answer]:
        """GET a URL, following redirects; each is judged like the first.

        Once a redirect leads to another server, only harmless headers are sent, even if a further one leads back.
        """
        until = _loop_time() + patience.total_ms / 1000
        first, sent = parse_url(url), headers
        for _ in range(self._config.max_redirects + 1):
            parsed = parse_url(url)
            if parsed.scheme not in schemes:
                raise OutboundError(OutboundReason.BAD_URL, f"{parsed.host} is not asked over {parsed.scheme}")
            self._resolver.check_literal(parsed.host)
            if parsed.origin != first.origin:
                sent = {name: value for name, value in sent.items() if name.lower() in _HARMLESS}
            async with AsyncExitStack() as stack:
                answer = await self._sent(stack, parsed.url, sent, patience, until, tls_name=None)
                location = answer.headers.get("Location")
                if answer.status not in _REDIRECTS or location is None:
                    answer.check_encoding()
                    yield answer
                    return
                url = joined(url, location)
        raise OutboundError(OutboundReason.TOO_MANY_REDIRECTS, f"{first.host} redirects too often")

    async def _sent(
        self,
        stack: AsyncExitStack,
        url: URL,
        headers: Mapping[str, str],
        patience: Patience,
        until: float,
        *,
        tls_name: str | None,
    ) -> Answer:
        if self._session is None:
            raise RuntimeError("the door is not open")
        host = url.host or ""
        await stack.enter_async_context(self.places.enter())
        head_until = min(until, _loop_time() + (patience.connect_ms + patience.headers_ms) / 1000)
        request = self._session.get(
            url,
            headers={"Accept-Encoding": "identity", "User-Agent": "mediarepo", **headers},
            allow_redirects=False,
            server_hostname=tls_name,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience.connect_ms / 1000),
        )
        with explained(host):
            async with asyncio.timeout_at(head_until):
                response = await stack.enter_async_context(request)
        stack.callback(response.close)
        return Answer(response, host, patience=patience, until=until)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
