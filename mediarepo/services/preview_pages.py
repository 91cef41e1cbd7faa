"""Pages, oEmbed answers and images, fetched through the door under the operator's rules for URLs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mediarepo.config.previews import PreviewsConfig
from mediarepo.errors import InvalidParamError
from mediarepo.outbound.client import Answer, Outbound
from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.targets import Patience
from mediarepo.previews.encodings import ACCEPTED, Decoder, UnreadableEncodingError
from mediarepo.previews.request_headers import RequestHeaders
from mediarepo.previews.url_rules import UrlRules
from mediarepo.previews.urls import parse_preview_url

_SCHEMES = frozenset({"http", "https"})
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


@dataclass(slots=True)
class Course:
    """Follows one request: judges each URL on its way, and notes them."""

    rules: UrlRules
    request_headers: RequestHeaders
    language: str | None
    accept: str
    urls: list[str] = field(default_factory=list)

    def headers(self, url: str) -> Mapping[str, str]:
        """Give the headers for the next request; OutboundError when a rule stands against it."""
        try:
            parsed = parse_preview_url(url)
        except InvalidParamError as exc:
            raise OutboundError(OutboundReason.BAD_URL, exc.message) from exc
        refusal = self.rules.refusal(parsed)
        if refusal is not None:
            raise OutboundError(OutboundReason.BAD_URL, f"{parsed.host} is refused by previews.{refusal}")
        self.urls.append(parsed.text)
        headers = self.request_headers.of(parsed.host)
        if self.language is not None:
            headers["Accept-Language"] = self.language
        return {**headers, "Accept": self.accept, "Accept-Encoding": ACCEPTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewPages:
    """Fetches what a preview is made of."""

    config: PreviewsConfig
    outbound: Outbound
    rules: UrlRules
    request_headers: RequestHeaders

    async def page(self, url: str, language: str | None) -> Fetched:
        """Fetch a page, as much of it as is read."""
        return await self._fetch(url, language, _PAGE, max_bytes=self.config.max_page_bytes, whole=False)

    async def oembed(self, url: str, language: str | None) -> Fetched:
        """Fetch an oEmbed answer."""
        return await self._fetch(url, language, _OEMBED, max_bytes=_MAX_OEMBED_BYTES, whole=True)

    async def image(self, url: str) -> Fetched:
        """Fetch an image, whole or not at all."""
        return await self._fetch(url, None, _IMAGE, max_bytes=self.config.max_image_bytes, whole=True)

    async def _fetch(self, url: str, language: str | None, accept: str, *, max_bytes: int, whole: bool) -> Fetched:
        try:
            async with self._open(url, language, accept) as answer:
                if answer.status not in _OK:
                    raise PageError(f"{answer.url} answers {answer.status}")
                return Fetched(
                    answer.url,
                    answer.headers.get("Content-Type"),
                    answer.headers.get("Content-Disposition"),
                    await _body(answer, max_bytes, whole=whole),
                )
        except OutboundError as exc:
            raise PageError(f"{exc} ({exc.reason})") from exc
        except UnreadableEncodingError as exc:
            raise PageError(str(exc)) from exc

    @asynccontextmanager
    async def _open(self, url: str, language: str | None, accept: str) -> AsyncIterator[Answer]:
        timeout_ms = self.config.timeout_ms
        patience = Patience(
            connect_ms=min(_CONNECT_MS, timeout_ms), headers_ms=timeout_ms, idle_ms=timeout_ms, total_ms=timeout_ms
        )
        course = Course(self.rules, self.request_headers, language, accept)
        async with self.outbound.get(url, headers={}, patience=patience, schemes=_SCHEMES, course=course) as answer:
            yield answer


async def _body(answer: Answer, max_bytes: int, *, whole: bool) -> bytes:
    """Read a body; one that is larger is cut, or refused when it is wanted whole."""
    decoder = Decoder(answer.headers.get("Content-Encoding"), max_bytes + 1 if whole else max_bytes)
    while not decoder.is_full and (piece := await answer.read()):
        decoder.feed(piece)
    if whole and len(decoder.body) > max_bytes:
        raise PageError(f"{answer.url} answers more than {max_bytes} bytes")
    return bytes(decoder.body)
