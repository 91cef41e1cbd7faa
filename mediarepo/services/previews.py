"""URL previews: made once for all requests and processes, then cached."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self

import structlog

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.config.previews import PreviewsConfig
from mediarepo.db.previews import CachedPreview, PreviewTable
from mediarepo.errors import ForbiddenError, PreviewError
from mediarepo.model.concurrency import Admission, SingleFlight, Waiters
from mediarepo.model.mxc import Mxc
from mediarepo.model.previews import PreviewUrl
from mediarepo.model.requester import current_client
from mediarepo.model.tasks import Queue
from mediarepo.outbound.ssrf_guard import domain_of
from mediarepo.previews.url_policy import parse_preview_url
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.preview_builder import BuildLog, PreviewBuilder
from mediarepo.services.preview_pages import PageError

log = structlog.get_logger(__name__)

_LANGUAGE = re.compile(r"[A-Za-z0-9*;=.,\- ]{1,100}", re.ASCII)
_POLL_S = 0.25
_FLOOR_S = 1.0
"""A failure is told no sooner, so that its time tells nothing of what was tried."""
MAX_KEPT = 100_000
"""Cached previews in the database, at most, but for what comes between two runs of the housekeeping."""
_BATCH = 500
_MAX_WAITING, _AT_ONCE, _PER_DOMAIN = 1_000, 100, 16
_PLACE_WAIT_S = 15.0
_FAILURE = "the page cannot be previewed"
"""The same words, whatever the reason: they must not tell what lies behind an address."""

_ADDRESS = re.compile(r"(https?://[^\s/?#]*)[/?#]\S*")

Answer = dict[str, str | int]


def hosts_only(text: str) -> str:
    """Reduce URLs in a text to their hosts: paths and queries may hold secrets."""
    return _ADDRESS.sub(r"\1/...", text)


class Previews:
    """Serves cached previews, or makes them."""

    def __init__(
        self,
        config: PreviewsConfig,
        *,
        table: PreviewTable,
        making: PreviewBuilder,
        lease_holder: LeaseHolder,
        isolation: BatchIsolation,
    ) -> None:
        self.config = config
        self.table = table
        self.making = making
        self._holding = lease_holder
        self._isolation = isolation
        self.flights = SingleFlight[CachedPreview]()
        self.places = Admission(
            "wait for previews", places=_AT_ONCE, share=4, per_target=_PER_DOMAIN, wait_s=_PLACE_WAIT_S
        )
        self.waiters = Waiters("wait for previews", limit=_MAX_WAITING)

    async def __aenter__(self) -> Self:
        await self.flights.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.flights.__aexit__(*exc_info)

    def parse(self, text: str) -> PreviewUrl:
        """Parse a URL. Raises InvalidParamError when it is invalid, ForbiddenError when a rule denies it."""
        url = parse_preview_url(text)
        if not self.making.pages.rules.allows(url):
            raise ForbiddenError("this URL may not be previewed here")
        return url

    async def get(self, text: str, homeserver: HomeserverConfig, *, accept_language: str | None) -> Answer:
        """Return the preview of a URL. Raises PreviewError when there is none."""
        url = self.parse(text)
        language = accept_language if accept_language and _LANGUAGE.fullmatch(accept_language) else None
        key = hashlib.sha256(f"{homeserver.server_name}\0{language or ''}\0{url.text}".encode()).digest()
        began = asyncio.get_running_loop().time()
        kept = await self.table.get(key)
        if kept is None:
            kept = await self._made(key, url, homeserver, language)
        if kept.answer is None:
            await asyncio.sleep(max(0.0, began + _FLOOR_S - asyncio.get_running_loop().time()))
            raise PreviewError(_FAILURE)
        return kept.answer

    async def _made(
        self, key: bytes, url: PreviewUrl, homeserver: HomeserverConfig, language: str | None
    ) -> CachedPreview:
        remote_fetch = key, current_client().name  # nobody waits in somebody else's queue
        with self.waiters.enter():
            return await self.flights.run(remote_fetch, lambda: self._make_or_wait(key, url, homeserver, language))

    async def _make_or_wait(
        self, key: bytes, url: PreviewUrl, homeserver: HomeserverConfig, language: str | None
    ) -> CachedPreview:
        """Make a preview unless another process does; then wait for that, and take over if it dies."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * self.config.timeout_ms / 1000
        while loop.time() < until:
            async with (
                self.places.enter(target=domain_of(url.host)),  # before the lease, which others wait for
                self._holding.acquire(f"preview {key.hex()}") as lease,
            ):
                kept = await self.table.get(key)
                if kept is not None:
                    return kept
                if lease is not None:
                    return await self._make(key, url, homeserver, language)
            await asyncio.sleep(_POLL_S)
        return CachedPreview(None, "another process took too long")

    async def _make(
        self, key: bytes, url: PreviewUrl, homeserver: HomeserverConfig, language: str | None
    ) -> CachedPreview:
        steps = BuildLog()
        try:
            async with asyncio.timeout(self.config.timeout_ms / 1000):
                preview = await self.making.make(url, homeserver, language=language, steps=steps)
            kept = CachedPreview(preview.values, None)
            lifetime_ms = self.config.failure_ttl_ms if preview.says_nothing else self.config.ttl_ms
        except (PageError, TimeoutError) as exc:
            reason = str(exc) or "it took too long"
            log.info(
                "preview_failed",
                host=url.host,
                key=key.hex()[:16],
                reason=hosts_only(reason),
                steps=[hosts_only(step) for step in steps.told],
            )
            kept, lifetime_ms = CachedPreview(None, reason), self.config.failure_ttl_ms
        await self.table.keep(key, url.text, kept, lifetime_ms)
        return kept

    async def tidy(self) -> None:
        """Delete expired previews, and the oldest images beyond the budget."""
        await self.table.forget_expired(MAX_KEPT)
        async with self._isolation.drain_queue(Queue.PREVIEWS):
            await self._forget_images(self.table.expired_images)
            await self._forget_images(partial(self.table.images_over_budget, self.config.budget_bytes))

    async def _forget_images(self, find: Callable[[int], Awaitable[list[Mxc]]]) -> None:
        while mxcs := await find(_BATCH):
            outcome = await self._isolation.run(Queue.PREVIEWS, mxcs, self.table.forget_images)
            if not outcome.done and not outcome.failed:
                return  # others are at them
