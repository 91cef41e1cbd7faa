"""Client of other servers' media endpoints: federation first, legacy where that is not supported."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from mediarepo.config.federation import RemoteMediaConfig
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.federation.client import FederationClient
from mediarepo.federation.multipart import (
    MixedBody,
    MultipartError,
    PartHeaders,
    RemoteContent,
    parse_boundary,
    parse_upload_name,
)
from mediarepo.federation.request_auth import sign_request
from mediarepo.federation.signing import SigningKey
from mediarepo.model.declared import content_type_or_default, upload_name_or_none
from mediarepo.model.mxc import Mxc
from mediarepo.model.remote_media import FetchError, FetchReason
from mediarepo.outbound.client import Outbound, OutboundResponse
from mediarepo.outbound.errors import OutboundError, OutboundReason, Timeouts
from mediarepo.outbound.urls import join_reference

_REASONS = {
    OutboundReason.FORBIDDEN_ADDRESS: FetchReason.FORBIDDEN_ADDRESS,
    OutboundReason.NAME_NOT_FOUND: FetchReason.NOT_DISCOVERED,
    OutboundReason.UNREACHABLE: FetchReason.UNREACHABLE,
    OutboundReason.TLS_FAILED: FetchReason.TLS_FAILED,
    OutboundReason.TOO_SLOW: FetchReason.TOO_SLOW,
    OutboundReason.TOO_LARGE: FetchReason.NOT_UNDERSTOOD,
    OutboundReason.BROKEN_OFF: FetchReason.BROKEN_OFF,
    OutboundReason.BAD_URL: FetchReason.FORBIDDEN_ADDRESS,
}
_STATUSES = {
    401: FetchReason.SIGNATURE_REFUSED,
    403: FetchReason.FORBIDDEN,
    404: FetchReason.NOT_FOUND,
    413: FetchReason.TOO_LARGE,
    429: FetchReason.RATE_LIMITED,
    503: FetchReason.UNREACHABLE,
    504: FetchReason.TOO_SLOW,
}
_ERRCODES = {
    "M_NOT_YET_UPLOADED": FetchReason.NOT_YET_UPLOADED,
    "M_TOO_LARGE": FetchReason.TOO_LARGE,
}
_SERVER_ERRORS = 500


def fetch_failure(status: int, errcode: str | None, who: str) -> FetchError:
    """Return the FetchError of an error response."""
    reason = _ERRCODES.get(errcode or "") or _STATUSES.get(status)
    if reason is None:
        reason = FetchReason.SERVER_ERROR if status >= _SERVER_ERRORS else FetchReason.NOT_UNDERSTOOD
    return FetchError(reason, f"{who} answers {status} {errcode or ''}".strip())


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate OutboundError and MultipartError into FetchError."""
    try:
        yield
    except OutboundError as exc:
        raise FetchError(_REASONS.get(exc.reason, FetchReason.NOT_UNDERSTOOD), str(exc)) from exc
    except MultipartError as exc:
        raise FetchError(FetchReason.NOT_UNDERSTOOD, str(exc)) from exc


class PlainContent:
    """A body that is the content itself (legacy endpoint, or the target of a redirect)."""

    def __init__(self, answer: OutboundResponse) -> None:
        self._answer = answer
        self.content_type = content_type_or_default(answer.headers.get("Content-Type"))
        self.upload_name = upload_name_or_none(parse_upload_name(answer.headers.get("Content-Disposition")))
        self.size_bytes = answer.declared_bytes
        self.at_most_bytes = answer.declared_bytes

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end."""
        with translate_errors():
            return await self._answer.read()


class MixedContent:
    """The file part of a multipart/mixed body; its length is known at its end, unless the part declares it.

    The declared length is enforced: the last bytes are returned only when the end came where it should.
    """

    def __init__(self, answer: OutboundResponse, body: MixedBody, part: PartHeaders) -> None:
        self._body = body
        self.content_type = content_type_or_default(part.content_type)
        outer = answer.headers.get("Content-Disposition")  # where some servers say it
        name = parse_upload_name(part.content_disposition) or parse_upload_name(outer)
        self.upload_name = upload_name_or_none(name)
        self.size_bytes = part.size_bytes
        self._left = part.size_bytes
        self.at_most_bytes = answer.declared_bytes if part.size_bytes is None else part.size_bytes

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end.

        Raises MultipartError when the file is not as long as its part says.
        """
        with translate_errors():
            piece = await self._body.read()
            if self._left is None:
                return piece
            self._left -= len(piece)
            ends = not self._left and not (piece and await self._body.read())
            if self._left < 0 or (not ends and not (piece and self._left)):
                raise MultipartError("the file is not as long as its part says")
            return piece


_FEDERATION = "/_matrix/federation/v1/media/download"
_LEGACY = ("/_matrix/media/v3/download", "/_matrix/media/r0/download")
_OK = 200
_SCHEMES = frozenset({"https", "http"})
_REDIRECTS = {307, 308}
_UNKNOWN_ENDPOINT = {400, 404, 405}
_MAX_REFUSAL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaClient:
    """Fetches media, each request signed by the requesting user's homeserver."""

    config: RemoteMediaConfig
    client: FederationClient
    outbound: Outbound
    keys: Mapping[str, SigningKey]

    @asynccontextmanager
    async def open(self, mxc: Mxc, homeserver: HomeserverConfig, *, wait_ms: int) -> AsyncIterator[RemoteContent]:
        """Request media. Raises FetchError when they cannot be fetched."""
        key = self.keys.get(homeserver.server_name)
        if key is None:
            raise FetchError(
                FetchReason.NO_SIGNING_KEY,
                f"{homeserver.server_name} has no signing key here: set signing_key_file",
            )
        asked = _Asked(mxc, homeserver.server_name, key, wait_ms)
        async with AsyncExitStack() as stack:
            with translate_errors():
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

    async def _mixed(self, stack: AsyncExitStack, asked: "_Asked", answer: OutboundResponse) -> RemoteContent:
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
            raise FetchError(FetchReason.NOT_UNDERSTOOD, "the other server's redirect has no target")
        url = join_reference(f"https://{asked.mxc.server_name}/", location)
        await stack.aclose()
        answer = await stack.enter_async_context(
            self.outbound.get(url, headers={}, timeouts=self._timeouts(0), schemes=_SCHEMES)
        )
        if answer.status != _OK:
            raise fetch_failure(answer.status, None, "the target of the other server's redirect")
        return PlainContent(answer)

    async def _ask(self, stack: AsyncExitStack, asked: "_Asked", request_target: str) -> OutboundResponse:
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
            timeouts=self._timeouts(asked.wait_ms),
        )
        return await stack.enter_async_context(opening)

    def _timeouts(self, wait_ms: int) -> Timeouts:
        config = self.config
        return Timeouts(
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


async def _refused(answer: OutboundResponse, *, may_be_unknown: bool) -> None:
    """Return when the other server does not know the endpoint, else raise why it refuses.

    Servers from before an endpoint say so with M_UNRECOGNIZED, or with an error page that is no JSON at all.
    """
    errcode = await _errcode(answer)
    if may_be_unknown and answer.status in _UNKNOWN_ENDPOINT and errcode in {None, "M_UNRECOGNIZED"}:
        return
    raise fetch_failure(answer.status, errcode, "the other server")


async def _errcode(answer: OutboundResponse) -> str | None:
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
