"""Asks other servers for media: their federation endpoint first, the legacy one where they do not know it.

Server-server API, "Content Repository"; client-server API, "Content repository" for the legacy endpoint.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

from mediarepo.config.federation import RemoteMediaConfig
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.federation.client import FederationClient
from mediarepo.federation.contents import RemoteContent
from mediarepo.federation.fetch_failures import failure_of, translated
from mediarepo.federation.fetched import MixedContent, PlainContent
from mediarepo.federation.multipart import MixedBody, parse_boundary
from mediarepo.federation.signing import SigningKey
from mediarepo.federation.xmatrix import sign_request
from mediarepo.model.fetching import FetchError, FetchReason
from mediarepo.model.mxc import Mxc
from mediarepo.outbound.client import Answer, Outbound
from mediarepo.outbound.targets import Patience
from mediarepo.outbound.urls import joined

_FEDERATION = "/_matrix/federation/v1/media/download"
_LEGACY = ("/_matrix/media/v3/download", "/_matrix/media/r0/download")
_OK = 200
_SCHEMES = frozenset({"https", "http"})
_REDIRECTS = {307, 308}
_UNKNOWN_ENDPOINT = {400, 404, 405}
_MAX_REFUSAL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaClient:
    """Fetches media, each request signed by the homeserver whose user asks."""

    config: RemoteMediaConfig
    client: FederationClient
    outbound: Outbound
    keys: Mapping[str, SigningKey]

    @asynccontextmanager
    async def open(self, mxc: Mxc, homeserver: HomeserverConfig, *, wait_ms: int) -> AsyncIterator[RemoteContent]:
        """Ask for media; FetchError when they cannot be had."""
        key = self.keys.get(homeserver.server_name)
        if key is None:
            raise FetchError(
                FetchReason.NO_SIGNING_KEY,
                f"{homeserver.server_name} has no signing key here: set signing_key_file",
            )
        asked = _Asked(mxc, homeserver.server_name, key, wait_ms)
        async with AsyncExitStack() as stack:
            with translated():
                content = await self._federation(stack, asked) or await self._legacy(stack, asked)
            yield content

    async def _federation(self, stack: AsyncExitStack, asked: "_Asked") -> RemoteContent | None:
        """Ask the federation endpoint; None when the other server does not know it."""
        media_id = quote(asked.mxc.media_id, safe="")
        answer = await self._ask(stack, asked, f"{_FEDERATION}/{media_id}?timeout_ms={asked.wait_ms}")
        if answer.status != _OK:
            await _refused(answer, may_be_unknown=True)
            return None
        return await self._mixed(stack, asked, answer)

    async def _legacy(self, stack: AsyncExitStack, asked: "_Asked") -> RemoteContent:
        server_name, media_id = (quote(text, safe=":[]") for text in (asked.mxc.server_name, asked.mxc.media_id))
        query = f"allow_remote=false&timeout_ms={asked.wait_ms}&allow_redirect=true"
        for base in _LEGACY:
            answer = await self._ask(stack, asked, f"{base}/{server_name}/{media_id}?{query}")
            if answer.status in _REDIRECTS:
                return await self._elsewhere(stack, asked, answer.headers.get("Location", ""))
            if answer.status == _OK:
                return PlainContent(answer)
            await _refused(answer, may_be_unknown=base != _LEGACY[-1])
        raise FetchError(FetchReason.NOT_UNDERSTOOD, "the other server knows no endpoint for media")

    async def _mixed(self, stack: AsyncExitStack, asked: "_Asked", answer: Answer) -> RemoteContent:
        """Read up to the file's first byte, or go where the answer says that the file is."""
        boundary = parse_boundary(answer.headers.get("Content-Type", ""))
        body = MixedBody(answer, boundary, ends_by_length=answer.declared_bytes is not None)
        part = await body.begin()
        if part.location is not None:
            return await self._elsewhere(stack, asked, part.location)
        return MixedContent(answer, body, part)

    async def _elsewhere(self, stack: AsyncExitStack, asked: "_Asked", location: str) -> RemoteContent:
        """Fetch from where another server points to, over http too; nobody's signature goes there.

        The answer that says so is closed before: who waits for a connection holds none.
        """
        if not location:
            raise FetchError(FetchReason.NOT_UNDERSTOOD, "the other server points nowhere")
        url = joined(f"https://{asked.mxc.server_name}/", location)
        await stack.aclose()
        answer = await stack.enter_async_context(
            self.outbound.get(url, headers={}, patience=self._patience(0), schemes=_SCHEMES)
        )
        if answer.status != _OK:
            raise failure_of(answer.status, None, "where the other server points to")
        return PlainContent(answer)

    async def _ask(self, stack: AsyncExitStack, asked: "_Asked", request_target: str) -> Answer:
        """Ask the server itself, when its answer to what was asked before is closed."""
        await stack.aclose()
        authorization = sign_request(
            asked.key,
            method="GET",
            request_target=request_target,
            origin=asked.origin,
            destination=asked.mxc.server_name,
        )
        opening = self.client.open(
            asked.mxc.server_name,
            request_target,
            headers={"Authorization": authorization},
            patience=self._patience(asked.wait_ms),
        )
        return await stack.enter_async_context(opening)

    def _patience(self, wait_ms: int) -> Patience:
        config = self.config
        return Patience(
            connect_ms=config.connect_timeout_ms,
            headers_ms=config.answer_timeout_ms + wait_ms,
            idle_ms=config.idle_timeout_ms,
            total_ms=config.total_timeout_ms,
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked for, by whom, and how long its content may take to follow."""

    mxc: Mxc
    origin: str
    key: SigningKey
    wait_ms: int


async def _refused(answer: Answer, *, may_be_unknown: bool) -> None:
    """Return when the other server does not know the endpoint, else raise why it refuses.

    Servers from before an endpoint say so with M_UNRECOGNIZED, or with an error page that is no JSON at all.
    """
    errcode = await _errcode(answer)
    if may_be_unknown and answer.status in _UNKNOWN_ENDPOINT and errcode in {None, "M_UNRECOGNIZED"}:
        return
    raise failure_of(answer.status, errcode, "the other server")


async def _errcode(answer: Answer) -> str | None:
    """Read the errcode of a refusal; None when its body is no Matrix error."""
    text = bytearray()
    while len(text) <= _MAX_REFUSAL_BYTES and (piece := await answer.read()):
        text += piece
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    errcode = body.get("errcode") if isinstance(body, dict) else None
    return errcode if isinstance(errcode, str) else None
