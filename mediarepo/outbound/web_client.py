"""The outbound HTTP client for web pages: the same limits, and responses read as browsers read them.

One connection a request, HTTP/1.1 over TCP or TLS. What other servers of the federation answer goes through `client`.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, Self

from mediarepo.config.federation import OutboundConfig
from mediarepo.model.concurrency import Admission
from mediarepo.outbound.errors import OutboundError, OutboundReason, Timeouts
from mediarepo.outbound.ssrf_guard import AddressPolicy, GuardedResolver, Lookup, SystemLookup
from mediarepo.outbound.urls import WebUrl, join_url, literal_address, parse_web_url
from mediarepo.outbound.web_response import (
    MAX_HEAD_BYTES,
    Head,
    HeadError,
    body_framing,
    body_reader,
    find_end,
    location,
    may_be_http,
    parse_head,
)

_MAX_COOKIES, _MAX_COOKIE_BYTES, _MAX_HEADER_BYTES = 50, 4096, 16 * 1024
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Cookie:
    value: bytes
    secure: bool


def _now() -> datetime:
    return datetime.now(UTC)


class PreviewCookies:
    """The cookies of one preview; a parent domain's cookies are kept for the host alone."""

    def __init__(self, now: Callable[[], datetime] = _now) -> None:
        self._cookies: dict[tuple[str, str, bytes], _Cookie] = {}
        self._now = now
        self.changes = 0
        """How often something was kept; a page may answer differently afterwards."""

    def keep(self, set_cookie: bytes, *, scheme: str, host: str, path: str) -> None:
        """Store a Set-Cookie header, or ignore it when the host may not set it."""
        pair, *attributes = set_cookie.split(b";")
        name, equals, value = pair.partition(b"=")
        name, value = (name.strip(), value.strip()) if equals else (b"", pair.strip())
        if len(set_cookie) > _MAX_COOKIE_BYTES or _FORBIDDEN.search(set_cookie) or not (name or value):
            return
        said = _attributes(attributes)
        secure = "secure" in said
        if (secure and scheme != "https") or not _may_set(name, said, host, secure=secure):
            return
        place = said.get("path", "")
        key = host, place if place.startswith("/") else _default_path(path), name
        if self._is_expired(said):
            self._cookies.pop(key, None)
        elif key in self._cookies or len(self._cookies) < _MAX_COOKIES:
            self.changes += self._cookies.get(key) != _Cookie(value, secure)
            self._cookies[key] = _Cookie(value, secure)

    def header(self, *, scheme: str, host: str, path: str) -> bytes | None:
        """Return the Cookie header for a request; None when there are no cookies."""
        fitting = [
            (place, name, cookie.value)
            for (owner, place, name), cookie in self._cookies.items()
            if owner == host and _path_fits(place, path) and (scheme == "https" or not cookie.secure)
        ]
        fitting.sort(key=lambda one: -len(one[0]))
        text = b"; ".join(name + b"=" + value if name else value for _, name, value in fitting)
        return text if 0 < len(text) <= _MAX_HEADER_BYTES else None

    def _is_expired(self, said: dict[str, str]) -> bool:
        if _NUMBER.fullmatch(said.get("max-age", "")):
            return int(said["max-age"]) <= 0
        try:
            until = parsedate_to_datetime(said.get("expires", "").replace("-", " "))
        except (ValueError, TypeError, IndexError):
            return False
        return until.replace(tzinfo=until.tzinfo or UTC) <= self._now()


def _attributes(pieces: list[bytes]) -> dict[str, str]:
    said: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.decode("latin-1").partition("=")
        said[name.strip().lower()] = value.strip()
    return said


def _may_set(name: bytes, said: dict[str, str], host: str, *, secure: bool) -> bool:
    """Check Domain and the prefixes of names."""
    domain = said.get("domain", "").lower().removeprefix(".")
    if domain and domain != host and not host.endswith(f".{domain}"):
        return False
    lowered = name.lower()
    if lowered.startswith(b"__host-"):
        return secure and not domain and said.get("path") == "/"
    return secure or not lowered.startswith(b"__secure-")


def _default_path(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _path_fits(place: str, path: str) -> bool:
    return path == place or (path.startswith(place) and (place.endswith("/") or path[len(place)] == "/"))


_MAX_REDIRECTS = 20
"""As Fetch has it ("HTTP-redirect fetch")."""
_PIECE_BYTES = 64 * 1024
_SWITCHING = 101
_FINAL = 200


class RequestPolicy(Protocol):
    """Decides about each URL of a request and its redirects, and chooses the headers."""

    def headers(self, url: WebUrl) -> Mapping[str, str]:
        """Return the headers for the next request. Raises OutboundError when it must not be sent."""
        ...


class WebResponse:
    """Headers and an unread body; a body that breaks off counts as ended, as in browsers."""

    def __init__(
        self, head: Head, url: WebUrl, start: bytes, reader: asyncio.StreamReader, *, idle_s: float, until: float
    ) -> None:
        self.head = head
        self.url = url
        self._waiting = start
        self._stream = reader
        self._body = body_reader(*body_framing(head))
        self._idle_s = idle_s
        self._until = until

    async def read(self) -> bytes:
        """Wait for the next bytes of the body; empty at its end. Raises OutboundError when they come too slowly."""
        while not self._body.is_done:
            piece, self._waiting = self._waiting or await self._received(), b""
            if not piece:
                return b""
            if body := self._body.feed(piece):
                return body
        return b""

    async def _received(self) -> bytes:
        now = _loop_time()
        if now >= self._until:  # bytes that are there already would be given without a look at the clock
            raise self._too_slow()
        try:
            async with asyncio.timeout_at(min(now + self._idle_s, self._until)):
                return await self._stream.read(_PIECE_BYTES)
        except TimeoutError as exc:
            raise self._too_slow() from exc
        except OSError:
            return b""

    def _too_slow(self) -> OutboundError:
        return OutboundError(OutboundReason.TOO_SLOW, f"{self.url.host} sends its response too slowly")


class WebClient:
    """HTTP client for web servers; connects to permitted addresses only, checked again at each redirect."""

    def __init__(self, config: OutboundConfig, *, lookup: Lookup | None = None) -> None:
        self._own_lookup = SystemLookup() if lookup is None else None
        rules = AddressPolicy(allow=lambda: config.allow_networks, deny=lambda: config.deny_networks)
        self._resolver = GuardedResolver(
            rules, lookup or self._own_lookup or SystemLookup(), config.resolve_timeout_ms / 1000
        )
        self._tls = ssl.create_default_context(cafile=config.ca_file)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_alpn_protocols(["http/1.1"])
        self.places = Admission("wait for web servers", places=config.max_connections, share=4)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._own_lookup is not None:
            self._own_lookup.close()

    @asynccontextmanager
    async def get(
        self, url: str, *, timeouts: Timeouts, policy: RequestPolicy, cookies: PreviewCookies
    ) -> AsyncIterator[WebResponse]:
        """GET a URL and follow its redirects. Raises OutboundError when there is no response."""
        until = _loop_time() + timeouts.total_ms / 1000
        parsed = parse_web_url(url)
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._asked(parsed, timeouts, until, policy, cookies) as answer:
                try:
                    target = location(answer.head)
                except HeadError as exc:
                    raise _not_http(parsed, exc) from exc
                if target is None:
                    yield answer
                    return
            parsed = join_url(parsed, target)
        raise OutboundError(OutboundReason.TOO_MANY_REDIRECTS, f"{parsed.host} redirects too often")

    @asynccontextmanager
    async def _asked(
        self, url: WebUrl, timeouts: Timeouts, until: float, policy: RequestPolicy, cookies: PreviewCookies
    ) -> AsyncIterator[WebResponse]:
        request = _request(url, policy.headers(url), cookies)
        async with self.places.enter():
            reader, writer = await self._connect(url, min(until, _loop_time() + timeouts.connect_ms / 1000))
            try:
                head_until = min(until, _loop_time() + timeouts.headers_ms / 1000)
                head, start = await _answered(url, reader, writer, request, head_until)
                for value in head.raw("Set-Cookie"):
                    cookies.keep(value, scheme=url.scheme, host=url.host, path=url.path)
                yield WebResponse(head, url, start, reader, idle_s=timeouts.idle_ms / 1000, until=until)
            except HeadError as exc:
                raise _not_http(url, exc) from exc
            finally:
                writer.transport.abort()

    async def _connect(self, url: WebUrl, until: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        addresses = await self._addresses(url.host)
        failure = OutboundError(OutboundReason.UNREACHABLE, f"{url.host} could not be connected to in time")
        for at, address in enumerate(addresses):
            now = _loop_time()
            try:
                async with asyncio.timeout_at(now + (until - now) / (len(addresses) - at)):
                    return await asyncio.open_connection(
                        address,
                        url.port,
                        limit=_PIECE_BYTES,
                        ssl=self._tls if url.scheme == "https" else None,
                        server_hostname=url.host if url.scheme == "https" else None,
                    )
            except ssl.SSLCertVerificationError as exc:
                raise OutboundError(
                    OutboundReason.TLS_FAILED, f"{url.host} has an invalid certificate: {exc.verify_message}"
                ) from exc
            except ssl.SSLError as exc:
                raise OutboundError(OutboundReason.TLS_FAILED, f"no TLS connection to {url.host}: {exc}") from exc
            except TimeoutError:
                continue
            except (OSError, UnicodeError, ValueError) as exc:
                failure = OutboundError(OutboundReason.UNREACHABLE, f"{url.host} cannot be reached: {exc}")
        raise failure

    async def _addresses(self, host: str) -> list[str]:
        if literal_address(host) is not None:
            self._resolver.check_literal(host)
            return [host]
        return [str(found["host"]) for found in await self._resolver.resolve(host)]


def _request(url: WebUrl, headers: Mapping[str, str], cookies: PreviewCookies) -> bytes:
    """Spell a request; headers come from our configuration, or were checked."""
    lines = [f"GET {url.target} HTTP/1.1", f"Host: {url.host_header}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join([*lines, "Connection: close"])
    if any(character in line for line in lines for character in "\r\n\0"):
        raise OutboundError(OutboundReason.BAD_URL, "a header with a line end")
    cookie = cookies.header(scheme=url.scheme, host=url.host, path=url.path)
    return text.encode() + (b"\r\nCookie: " + cookie if cookie else b"") + b"\r\n\r\n"


async def _answered(
    url: WebUrl, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, until: float
) -> tuple[Head, bytes]:
    """Send a request; give the answer's head, and what came of its body with it."""
    try:
        async with asyncio.timeout_at(until):
            writer.write(request)
            await writer.drain()
            return await _head(reader, is_plain=url.scheme == "http")
    except TimeoutError as exc:
        raise OutboundError(OutboundReason.TOO_SLOW, f"{url.host} did not answer in time") from exc
    except OSError as exc:
        raise OutboundError(OutboundReason.UNREACHABLE, f"{url.host} closed the connection") from exc


async def _head(reader: asyncio.StreamReader, *, is_plain: bool) -> tuple[Head, bytes]:
    """Read up to the end of the final head; one that ends with the connection is whole, where no TLS says otherwise."""
    data, left = bytearray(), MAX_HEAD_BYTES
    while True:
        end = find_end(data)
        if end is None and len(data) < left:
            if not may_be_http(data):
                raise HeadError("no status line")
            if piece := await reader.read(_PIECE_BYTES):
                data += piece
                continue
            if not data:
                raise ConnectionResetError("no answer")
            if not is_plain:
                raise HeadError("incomplete headers")
            end = len(data)
        if end is None or end > left:
            raise HeadError(f"more than {MAX_HEAD_BYTES} bytes of headers")
        head = parse_head(bytes(data[:end]))
        if head.status >= _FINAL:
            return head, bytes(data[end:])
        if head.status == _SWITCHING:
            raise HeadError("another protocol")
        del data[:end]
        left -= end


def _not_http(url: WebUrl, exc: HeadError) -> OutboundError:
    return OutboundError(OutboundReason.NOT_HTTP, f"{url.host} sends an invalid HTTP response: {exc}")


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
