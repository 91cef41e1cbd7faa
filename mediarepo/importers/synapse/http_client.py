"""HTTP client for a Synapse's admin API: bounded, and patient when told to slow down."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus

import aiohttp
from yarl import URL

from mediarepo.importers.errors import BytesVanishedError, SourceConfigError, SourceError, SourceUnavailableError

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
_PIECE_BYTES = 256 * 1024
_MAX_JSON_BYTES = 64 * 1024 * 1024
_ATTEMPTS = 6
_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0
_SLOW_DOWN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}


class HomeserverGetter:
    """An HttpGetter for the configured address; it connects at first use."""

    def __init__(self, url: str, token: str) -> None:
        parts = URL(url)
        if parts.scheme not in {"http", "https"} or not parts.host:
            raise SourceConfigError(f"{url} is no address such as https://synapse.example.org")
        self._base = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get_json(self, path: str, parameters: Mapping[str, str]) -> tuple[int, object]:
        """Return the status and the JSON body, None when it is not JSON.

        Raises SourceError when the body is too large, SourceUnavailableError when the connection breaks.
        """
        response = await self._get(path, parameters)
        async with response:
            if (response.content_length or 0) > _MAX_JSON_BYTES:
                raise SourceError(f"{self._base} answers {path} with more than {_MAX_JSON_BYTES} bytes")
            try:
                return response.status, await response.json(content_type=None)
            except ValueError:
                return response.status, None
            except (aiohttp.ClientError, OSError) as exc:
                raise SourceUnavailableError(f"{self._base} broke off: {exc or type(exc).__name__}") from exc

    async def get_bytes(self, path: str, parameters: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Read a body in pieces.

        Raises BytesVanishedError at 404, SourceError at other statuses than 200, SourceUnavailableError when the
        connection breaks.
        """
        response = await self._get(path, parameters)
        async with response:
            if response.status == HTTPStatus.NOT_FOUND:
                raise BytesVanishedError(f"{self._base} has no bytes at {path}: they are gone")
            if response.status != HTTPStatus.OK:
                raise SourceError(f"{self._base} answered {response.status} to {path}")
            try:
                while piece := await response.content.read(_PIECE_BYTES):
                    yield piece
            except (aiohttp.ClientError, OSError) as exc:
                raise SourceUnavailableError(f"{self._base} broke off: {exc or type(exc).__name__}") from exc

    async def _get(self, path: str, parameters: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask, again while the homeserver limits requests."""
        url = URL(self._base + path, encoded=True).update_query(parameters)
        pause_s = _PAUSE_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = await self._opened().get(url, headers=self._headers, allow_redirects=False)
            except (aiohttp.ClientError, OSError) as exc:
                if attempt == _ATTEMPTS:
                    raise SourceUnavailableError(f"{self._base} cannot be reached: {exc}") from exc
            else:
                if response.status not in _SLOW_DOWN or attempt == _ATTEMPTS:
                    return response
                pause_s = max(pause_s, await _asked_to_wait_s(response))
                response.close()
            await asyncio.sleep(min(pause_s, _MAX_PAUSE_S))
            pause_s *= 2
        raise SourceUnavailableError(f"{self._base} cannot be reached")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            )
        return self._session


async def _asked_to_wait_s(response: aiohttp.ClientResponse) -> float:
    header = response.headers.get("Retry-After", "")
    if header.isdecimal():
        return float(header)
    try:
        body = await response.json(content_type=None)
    except (ValueError, aiohttp.ClientError, OSError):
        return 0.0
    asked = body.get("retry_after_ms") if isinstance(body, dict) else None
    return asked / 1000 if isinstance(asked, int | float) else 0.0
