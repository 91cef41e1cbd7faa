"""Pages, oEmbed answers and images, fetched under the operator's rules for URLs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mediarepo.config.previews import PreviewsConfig
from mediarepo.outbound.errors import OutboundError, OutboundReason, Patience
from mediarepo.outbound.urls import WebUrl
from mediarepo.outbound.web_client import CookieJar, WebAnswer, WebClient
from mediarepo.outbound.web_response import refresh
from mediarepo.previews.encoding import ACCEPTED, Decoder, UnreadableEncodingError, extract_content_type
from mediarepo.previews.html import parse_refresh
from mediarepo.previews.page import RequestHeaders
from mediarepo.previews.url_policy import UrlRules, preview_url, resolved

_OK = range(200, 300)
_PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,text/plain;q=0.5,image/*;q=0.5,*/*;q=0.1"
_OEMBED = "application/json, text/xml;q=0.5"
_IMAGE = "image/png,image/jpeg,image/webp,image/gif,image/avif;q=0.8,*/*;q=0.1"
_MAX_OEMBED_BYTES = 512 * 1024
_CONNECT_MS = 5_000


class PageError(Exception):
    """Something could not be fetched for a preview; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer's body with its encoding undone, and where it came from after redirects."""

    url: str
    content_type: str | None
    content_disposition: str | None
    body: bytes
    refresh_url: str | None = None
    """Where the answer's Refresh header sends readers."""


@dataclass(frozen=True, slots=True)
class PageRequestPolicy:
    """Judges each URL that one request comes to, and says what is sent there."""

    rules: UrlRules
    request_headers: RequestHeaders
    language: str | None
    accept: str

    def headers(self, url: WebUrl) -> Mapping[str, str]:
        """Give the headers for the next request; OutboundError when a rule stands against it."""
        refusal = self.rules.refusal(preview_url(url))
        if refusal is not None:
            raise OutboundError(OutboundReason.BAD_URL, f"{url.host} is refused by previews.{refusal}")
        headers = self.request_headers.of(url.host)
        if self.language is not None:
            headers = {name: value for name, value in headers.items() if name.lower() != "accept-language"}
            headers["Accept-Language"] = self.language
        return {**headers, "Accept": self.accept, "Accept-Encoding": ACCEPTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewPages:
    """Fetches what a preview is made of."""

    config: PreviewsConfig
    client: WebClient
    rules: UrlRules
    request_headers: RequestHeaders

    async def page(self, url: str, language: str | None, cookies: CookieJar) -> Fetched:
        """Fetch a page, as much of it as is read."""
        max_bytes = self.config.max_page_bytes
        return await self._fetch(url, self._policy(language, _PAGE), cookies, max_bytes=max_bytes, whole=False)

    async def oembed(self, url: str, language: str | None, cookies: CookieJar) -> Fetched:
        """Fetch an oEmbed answer."""
        policy = self._policy(language, _OEMBED)
        return await self._fetch(url, policy, cookies, max_bytes=_MAX_OEMBED_BYTES, whole=True)

    async def image(self, url: str, cookies: CookieJar) -> Fetched:
        """Fetch an image, whole or not at all."""
        max_bytes = self.config.max_image_bytes
        return await self._fetch(url, self._policy(None, _IMAGE), cookies, max_bytes=max_bytes, whole=True)

    def _policy(self, language: str | None, accept: str) -> PageRequestPolicy:
        return PageRequestPolicy(self.rules, self.request_headers, language, accept)

    async def _fetch(
        self, url: str, policy: PageRequestPolicy, cookies: CookieJar, *, max_bytes: int, whole: bool
    ) -> Fetched:
        try:
            async with self._open(url, policy, cookies) as answer:
                if answer.head.status not in _OK:
                    raise PageError(f"{answer.url.text} answers {answer.head.status}")
                return Fetched(
                    answer.url.text,
                    extract_content_type(answer.head.texts("Content-Type")),
                    answer.head.text("Content-Disposition"),
                    await _body(answer, max_bytes, whole=whole),
                    resolved(answer.url.text, parse_refresh(refresh(answer.head) or "")),
                )
        except OutboundError as exc:
            raise PageError(f"{exc} ({exc.reason})") from exc
        except UnreadableEncodingError as exc:
            raise PageError(str(exc)) from exc

    @asynccontextmanager
    async def _open(self, url: str, policy: PageRequestPolicy, cookies: CookieJar) -> AsyncIterator[WebAnswer]:
        timeout_ms = self.config.timeout_ms
        patience = Patience(
            connect_ms=min(_CONNECT_MS, timeout_ms), headers_ms=timeout_ms, idle_ms=timeout_ms, total_ms=timeout_ms
        )
        async with self.client.get(url, patience=patience, policy=policy, cookies=cookies) as answer:
            yield answer


async def _body(answer: WebAnswer, max_bytes: int, *, whole: bool) -> bytes:
    """Read a body; one that is larger is cut, or refused when it is wanted whole."""
    decoder = Decoder(answer.head.text("Content-Encoding"), max_bytes + 1 if whole else max_bytes)
    while not decoder.is_full and (piece := await answer.read()):
        decoder.feed(piece)
    if whole and len(decoder.body) > max_bytes:
        raise PageError(f"{answer.url.text} answers more than {max_bytes} bytes")
    return bytes(decoder.body)
