"""Asks a homeserver whose token it is (client-server API, GET /account/whoami)."""

from typing import Any

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import (
    ForbiddenError,
    LimitExceededError,
    MatrixError,
    UnknownDeviceError,
    UnknownTokenError,
    UserLockedError,
)
from mediarepo.homeserver.calls import RETRY_AFTER_S, HomeserverCalls, no_verdict
from mediarepo.model.requester import Requester

_PATH = "/_matrix/client/v3/account/whoami"


class Whoami:
    """Has tokens judged by the homeserver that made them."""

    def __init__(self, calls: HomeserverCalls) -> None:
        self._calls = calls

    async def ask(
        self, homeserver: HomeserverConfig, token: str, *, user_id: str | None, device_id: str | None
    ) -> Requester:
        """Return whose token it is, or raise the refusal that the homeserver gave.

        HomeserverUnavailableError when it gives no answer that can be understood: an outage is no verdict on a token.
        """
        if homeserver.client_api_url is None:
            raise UnknownTokenError("the access token is not known")
        asserted = {"user_id": user_id, "device_id": device_id}
        parameters = {name: value for name, value in asserted.items() if value is not None}
        status, answer = await self._calls.get(homeserver, _PATH, token, parameters=parameters)
        if status == 200:  # noqa: PLR2004 - HTTP's OK
            return _requester(homeserver, answer)
        raise _refusal(homeserver, status, answer)


def _requester(homeserver: HomeserverConfig, answer: dict[str, Any]) -> Requester:
    user_id, device_id = answer.get("user_id"), answer.get("device_id")
    if not isinstance(user_id, str) or not user_id.startswith("@"):
        raise no_verdict(homeserver, "no user_id")
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
            return LimitExceededError("the homeserver asks for patience", retry_after_s=RETRY_AFTER_S)
        case _:
            return no_verdict(homeserver, f"status {status}, errcode {errcode}")
