"""Fetches pages, oEmbed responses and images under the URL rules, and parses them in the sandbox."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from mediarepo.config.previews import PreviewsConfig
from mediarepo.model.previews import OEmbed, Page, Preview, PreviewLimits
from mediarepo.outbound.errors import OutboundError, OutboundReason, Timeouts
from mediarepo.outbound.urls import WebUrl
from mediarepo.outbound.web_client import PreviewCookies, WebClient, WebResponse
from mediarepo.outbound.web_response import refresh
from mediarepo.previews import worker
from mediarepo.previews.encoding import ACCEPTED, Decoder, UnreadableEncodingError, extract_content_type
from mediarepo.previews.html import parse_refresh
from mediarepo.previews.page import RequestHeaders
from mediarepo.previews.url_policy import UrlRules, preview_url, resolve_url
from mediarepo.sandbox.confinement import create_memfd, discard, seal
from mediarepo.sandbox.process import (
    BadAnswerError,
    ProcessDiedError,
    ProcessPool,
    SandboxedProcess,
    SandboxLimits,
    SandboxPolicy,
)
from mediarepo.telemetry.logs import error_text

_OK = range(200, 300)
_PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,text/plain;q=0.5,image/*;q=0.5,*/*;q=0.1"
_OEMBED = "application/json, text/xml;q=0.5"
_IMAGE = "image/png,image/jpeg,image/webp,image/gif,image/avif;q=0.8,*/*;q=0.1"
_MAX_OEMBED_BYTES = 512 * 1024
_CONNECT_MS = 5_000


class PageError(Exception):
    """A page, response or image could not be fetched; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response's decoded body, and its URL after redirects."""

    url: str
    content_type: str | None
    content_disposition: str | None
    body: bytes
    refresh_url: str | None = None
    """Where the answer's Refresh header sends readers."""


@dataclass(frozen=True, slots=True)
class PageRequestPolicy:
    """Applies the URL rules to each URL of a request and its redirects, and chooses the headers."""

    rules: UrlRules
    request_headers: RequestHeaders
    language: str | None
    accept: str

    def headers(self, url: WebUrl) -> Mapping[str, str]:
        """Return the headers for the next request. Raises OutboundError when a rule denies it."""
        refusal = self.rules.refusal(preview_url(url))
        if refusal is not None:
            raise OutboundError(OutboundReason.BAD_URL, f"{url.host} is refused by previews.{refusal}")
        headers = self.request_headers.of(url.host)
        if self.language is not None:
            headers = {name: value for name, value in headers.items() if name.lower() != "accept-language"}
            headers["Accept-Language"] = self.language
        return {**headers, "Accept": self.accept, "Accept-Encoding": ACCEPTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewFetcher:
    """Fetches pages, oEmbed responses and images."""

    config: PreviewsConfig
    client: WebClient
    rules: UrlRules
    request_headers: RequestHeaders

    async def page(self, url: str, language: str | None, cookies: PreviewCookies) -> Fetched:
        """Fetch a page, up to the size that is parsed."""
        max_bytes = self.config.max_page_bytes
        return await self._fetch(url, self._policy(language, _PAGE), cookies, max_bytes=max_bytes, whole=False)

    async def oembed(self, url: str, language: str | None, cookies: PreviewCookies) -> Fetched:
        """Fetch an oEmbed response."""
        policy = self._policy(language, _OEMBED)
        return await self._fetch(url, policy, cookies, max_bytes=_MAX_OEMBED_BYTES, whole=True)

    async def image(self, url: str, cookies: PreviewCookies) -> Fetched:
        """Fetch an image, whole or not at all."""
        max_bytes = self.config.max_image_bytes
        return await self._fetch(url, self._policy(None, _IMAGE), cookies, max_bytes=max_bytes, whole=True)

    def _policy(self, language: str | None, accept: str) -> PageRequestPolicy:
        return PageRequestPolicy(self.rules, self.request_headers, language, accept)

    async def _fetch(
        self, url: str, policy: PageRequestPolicy, cookies: PreviewCookies, *, max_bytes: int, whole: bool
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
                    resolve_url(answer.url.text, parse_refresh(refresh(answer.head) or "")),
                )
        except OutboundError as exc:
            raise PageError(f"{exc} ({exc.reason})") from exc
        except UnreadableEncodingError as exc:
            raise PageError(str(exc)) from exc

    @asynccontextmanager
    async def _open(self, url: str, policy: PageRequestPolicy, cookies: PreviewCookies) -> AsyncIterator[WebResponse]:
        timeout_ms = self.config.timeout_ms
        timeouts = Timeouts(
            connect_ms=min(_CONNECT_MS, timeout_ms), headers_ms=timeout_ms, idle_ms=timeout_ms, total_ms=timeout_ms
        )
        async with self.client.get(url, timeouts=timeouts, policy=policy, cookies=cookies) as answer:
            yield answer


async def _body(answer: WebResponse, max_bytes: int, *, whole: bool) -> bytes:
    """Read a body; one that is larger is cut, or refused when it is wanted whole."""
    decoder = Decoder(answer.head.text("Content-Encoding"), max_bytes + 1 if whole else max_bytes)
    while not decoder.is_full and (piece := await answer.read()):
        decoder.feed(piece)
    if whole and len(decoder.body) > max_bytes:
        raise PageError(f"{answer.url.text} answers more than {max_bytes} bytes")
    return bytes(decoder.body)


log = structlog.get_logger(__name__)

_MODULE = "mediarepo.previews.worker"
_LIMITS = SandboxLimits(memory_bytes=1024 * 1024 * 1024, cpu_limit_s=10, max_jobs=500)
_TIMEOUT_S = 20
_PROCESSES = 2
_QUEUE_LIMIT = 100
_MAX_PREVIEW_BYTES = 256 * 1024

Result = TypeVar("Result")


class PreviewParser(ProcessPool[SandboxedProcess]):
    """A few sandboxed processes, started when first needed."""

    def __init__(self, policy: SandboxPolicy | None = None) -> None:
        super().__init__(
            lambda: SandboxedProcess(_MODULE, {}, limits=_LIMITS, policy=policy or SandboxPolicy()),
            max_processes=min(_PROCESSES, os.cpu_count() or 1),
            queue_limit=_QUEUE_LIMIT,
            queue_timeout_s=_TIMEOUT_S,
            what="wait for pages to be read",
        )

    async def read_page(self, body: bytes, *, url: str, content_type: str | None, max_bytes: int) -> Page | None:
        """Parse a page, None when it is a file. Raises PageError when it exceeds the limits."""
        job = {"call": "read_page", "url": url, "content_type": content_type, "max_bytes": max_bytes}
        return await self._run(job, body, worker.PAGE)

    async def read_oembed(self, body: bytes, *, url: str, content_type: str | None) -> OEmbed | None:
        """Parse an oEmbed response. Raises PageError as above."""
        job = {"call": "read_oembed", "url": url, "content_type": content_type}
        return await self._run(job, body, worker.OEMBED)

    async def make(self, page: Page, oembed: OEmbed | None, limits: PreviewLimits) -> Preview:
        """Make the preview of a page. Raises PageError as above."""
        body = worker.MAKE_JOB.dump_json(worker.MakeJob(page=page, oembed=oembed, limits=limits))
        return await self._run({"call": "make"}, body, worker.PREVIEW, _MAX_PREVIEW_BYTES)

    async def make_of_file(
        self, url: str, content_type: str | None, upload_name: str | None, limits: PreviewLimits
    ) -> Preview:
        """Make the preview of a file. Raises PageError as above."""
        job = worker.FileJob(url=url, content_type=content_type, upload_name=upload_name, limits=limits)
        body = worker.FILE_JOB.dump_json(job)
        return await self._run({"call": "make_of_file"}, body, worker.PREVIEW, _MAX_PREVIEW_BYTES)

    async def _run(
        self,
        job: dict[str, Any],
        body: bytes,
        adapter: TypeAdapter[Result],
        max_bytes: int = worker.MAX_RESULT_BYTES,
    ) -> Result:
        source = create_memfd("mediarepo-page")
        try:
            result = create_memfd("mediarepo-preview")
        except BaseException:
            os.close(source)
            raise
        try:
            _write_all(source, body)
            seal(source)
            async with self.process() as process:
                try:
                    answer = await process.ask(job, source, result, timeout_s=_TIMEOUT_S)
                    return _read(answer, result, adapter, max_bytes)
                except BadAnswerError:
                    await process.end()
                    raise
        except (TimeoutError, ProcessDiedError, BadAnswerError) as exc:
            log.warning("preview_page_unreadable", reason=error_text(exc))
            raise PageError("the page is too complex to be parsed") from exc
        finally:
            os.close(source)
            discard(result)


def _read(answer: dict[str, Any], result: int, adapter: TypeAdapter[Result], max_bytes: int) -> Result:
    """Read an answer as plain data, and believe nothing that has not the right shape."""
    if "refused" in answer:
        log.info("preview_page_refused", reason=str(answer["refused"])[:50], detail=str(answer.get("detail", ""))[:200])
        raise PageError("the page cannot be parsed")
    size_bytes = answer.get("size_bytes")
    if type(size_bytes) is not int or not 0 < size_bytes <= max_bytes:
        raise BadAnswerError("no size")
    try:
        return adapter.validate_json(os.pread(result, size_bytes, 0), strict=True)
    except ValidationError as exc:
        raise BadAnswerError("an unexpected answer") from exc


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
