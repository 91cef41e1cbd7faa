"""Asks a homeserver whose token it is (client-server API, GET /account/whoami)."""

import json
import ssl
from typing import Any, Self

import aiohttp
import structlog

from mediarepo.config.homeservers import HomeserverConfig, IdentityConfig
from mediarepo.errors import (
    ForbiddenError,
    HomeserverUnavailableError,
    LimitExceededError,
    MatrixError,
    UnknownDeviceError,
    UnknownTokenError,
    UserLockedError,
)
from mediarepo.model.requester import Requester

log = structlog.get_logger(__name__)

_MAX_ANSWER_BYTES = 64 * 1024
_CONNECTIONS = 100
_RETRY_AFTER_S = 5


class Whoami:
    """One client for all configured homeservers; their addresses are the operator's own, hence trusted."""

    def __init__(self, config: IdentityConfig) -> None:
        self._timeout = aiohttp.ClientTimeout(total=config.timeout_ms / 1000)
        self._session: aiohttp.ClientSession | None = None
        self._tls: dict[str, ssl.SSLContext] = {}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self, homeserver: HomeserverConfig, token: str, *, user_id: str | None, device_id: str | None
    ) -> Requester:
        """Return whose token it is, or raise the refusal that the homeserver gave.

        HomeserverUnavailableError when it gives no answer that can be understood: an outage is no verdict on a token.
        """
        status, answer = await self._get(homeserver, token, user_id=user_id, device_id=device_id)
        if status == 200:  # noqa: PLR2004 - HTTP's OK
            return _requester(homeserver, answer)
        raise _refusal(homeserver, status, answer)

    async def _get(
        self, homeserver: HomeserverConfig, token: str, *, user_id: str | None, device_id: str | None
    ) -> tuple[int, dict[str, Any]]:
        if self._session is None or homeserver.client_api_url is None:
            raise UnknownTokenError("the access token is not known")
        asserted = {"user_id": user_id, "device_id": device_id}
        try:
            async with self._session.get(
                f"{homeserver.client_api_url}/_matrix/client/v3/account/whoami",
                params={name: value for name, value in asserted.items() if value is not None},
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
                ssl=self._tls_for(homeserver),
            ) as response:
                return response.status, await _answer(homeserver, response)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            log.warning("homeserver_unreachable", server_name=homeserver.server_name, reason=repr(exc))
            raise HomeserverUnavailableError(
                f"the homeserver {homeserver.server_name} cannot be reached to check the access token",
                retry_after_s=_RETRY_AFTER_S,
            ) from exc

    def _tls_for(self, homeserver: HomeserverConfig) -> ssl.SSLContext | bool:
        if homeserver.ca_file is None:
            return True
        if homeserver.ca_file not in self._tls:
            self._tls[homeserver.ca_file] = ssl.create_default_context(cafile=homeserver.ca_file)
        return self._tls[homeserver.ca_file]


async def _answer(homeserver: HomeserverConfig, response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Read a bounded JSON object; anything else is an outage, whatever its status."""
    text = bytearray()
    async for piece in response.content.iter_any():
        text += piece
        if len(text) > _MAX_ANSWER_BYTES:
            raise _no_verdict(homeserver, "too long an answer")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _no_verdict(homeserver, f"status {response.status}, no JSON object")
    return answer


def _requester(homeserver: HomeserverConfig, answer: dict[str, Any]) -> Requester:
    user_id, device_id = answer.get("user_id"), answer.get("device_id")
    if not isinstance(user_id, str) or not user_id.startswith("@"):
        raise _no_verdict(homeserver, "no user_id")
    return Requester(
        user_id,
        homeserver.server_name,
        is_guest=answer.get("is_guest") is True,
        device_id=device_id if isinstance(device_id, str) else None,
    )


def _refusal(homeserver: HomeserverConfig, status: int, answer: dict[str, Any]) -> MatrixError:
    """Put the homeserver's refusal into our words, keeping its own."""
    errcode, message = answer.get("errcode"), str(answer.get("error", "the access token was refused"))[:500]
    match status, errcode:
        case 401, "M_USER_LOCKED":
            return UserLockedError(message)
        case 401, str():
            return UnknownTokenError(message, soft_logout=answer.get("soft_logout") is True)
        case 403, str():
            return ForbiddenError(message)
        case 400, "M_UNKNOWN_DEVICE" | "ORG.MATRIX.MSC3202.UNKNOWN_DEVICE":
            return UnknownDeviceError(message)
        case 429, _:
            return LimitExceededError("the homeserver asks for patience", retry_after_s=_RETRY_AFTER_S)
        case _:
            return _no_verdict(homeserver, f"status {status}, errcode {errcode}")


def _no_verdict(homeserver: HomeserverConfig, reason: str) -> HomeserverUnavailableError:
    log.warning("homeserver_answers_nonsense", server_name=homeserver.server_name, reason=reason)
    return HomeserverUnavailableError(
        f"the homeserver {homeserver.server_name} did not say whose access token this is",
        retry_after_s=_RETRY_AFTER_S,
    )
