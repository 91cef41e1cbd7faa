"""HTTP client for the configured homeservers, whose addresses the operator trusts."""

import json
import ssl
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
import structlog

from mediarepo.config.homeservers import HomeserverConfig, IdentityConfig
from mediarepo.errors import HomeserverUnavailableError
from mediarepo.model.concurrency import Admission
from mediarepo.outbound.client import tls_context
from mediarepo.telemetry.logs import OutageLog, error_text

log = structlog.get_logger(__name__)

_MAX_ANSWER_BYTES = 64 * 1024
_CONNECTIONS = 100
RETRY_AFTER_S = 5


class HomeserverClient:
    """One HTTP client for all homeservers."""

    def __init__(self, config: IdentityConfig, outages: OutageLog) -> None:
        self._outages = outages
        self._timeout = aiohttp.ClientTimeout(total=config.timeout_ms / 1000)
        self.places = Admission(
            "wait for the homeserver", places=_CONNECTIONS, share=10, per_target=_CONNECTIONS // 2, wait_s=5.0
        )
        self._session: aiohttp.ClientSession | None = None
        self._tls: dict[str | None, ssl.SSLContext] = {}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self,
        homeserver: HomeserverConfig,
        path: str,
        token: str | None,
        *,
        parameters: Mapping[str, str] | None = None,
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> tuple[int, dict[str, Any]]:
        """GET a JSON object, with a token if one is given.

        Raises HomeserverUnavailableError when there is no valid answer. Raises LimitExceededError when too many
        requests wait.
        """
        if self._session is None or homeserver.client_api_url is None:
            raise no_verdict(homeserver, "no client_api_url is configured")
        try:
            async with (
                self.places.enter(target=homeserver.server_name),
                self._session.get(
                    f"{homeserver.client_api_url}{path}",
                    params=dict(parameters or {}),
                    headers={} if token is None else {"Authorization": f"Bearer {token}"},
                    allow_redirects=False,
                    ssl=self._tls_for(homeserver),
                ) as response,
            ):
                answer = response.status, await _answer(homeserver, response, max_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self._outages.note("homeserver", homeserver.server_name, error_text(exc))
            log.info("homeserver_unreachable", server_name=homeserver.server_name, reason=error_text(exc))
            raise HomeserverUnavailableError(
                f"the homeserver {homeserver.server_name} cannot be reached to check the access token",
                retry_after_s=RETRY_AFTER_S,
            ) from exc
        except HomeserverUnavailableError as exc:
            self._outages.note("homeserver", homeserver.server_name, exc.message)
            raise
        self._outages.note("homeserver", homeserver.server_name, None)
        return answer

    def _tls_for(self, homeserver: HomeserverConfig) -> ssl.SSLContext:
        if homeserver.ca_file not in self._tls:
            self._tls[homeserver.ca_file] = tls_context(homeserver.ca_file)
        return self._tls[homeserver.ca_file]


async def _answer(homeserver: HomeserverConfig, response: aiohttp.ClientResponse, max_bytes: int) -> dict[str, Any]:
    """Read a bounded JSON object; anything else is an outage, whatever its status."""
    text = bytearray()
    async for piece in response.content.iter_any():
        text += piece
        if len(text) > max_bytes:
            raise no_verdict(homeserver, "the response is too long")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise no_verdict(homeserver, f"status {response.status}, no JSON object")
    return answer


def no_verdict(homeserver: HomeserverConfig, reason: str) -> HomeserverUnavailableError:
    """Return the error for an answer that cannot be understood."""
    log.info("homeserver_response_invalid", server_name=homeserver.server_name, reason=reason)
    return HomeserverUnavailableError(
        f"the homeserver {homeserver.server_name} did not say whose access token this is",
        retry_after_s=RETRY_AFTER_S,
    )
