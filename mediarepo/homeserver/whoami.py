"""Asks a homeserver whose token it is (client-server API, GET /account/whoami)."""

from collections.abc import Callable
from typing import Any

import structlog

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import (
    ForbiddenError,
    InvalidParamError,
    LimitExceededError,
    MatrixError,
    UnknownDeviceError,
    UnknownTokenError,
    UserLockedError,
)
from mediarepo.homeserver.calls import RETRY_AFTER_S, HomeserverCalls, no_verdict
from mediarepo.model.requester import Requester
from mediarepo.model.user_id import parse_user_id

log = structlog.get_logger(__name__)

_PATH = "/_matrix/client/v3/account/whoami"


class Whoami:
    """Client of the homeservers' whoami endpoint; a homeserver is believed for its own users only."""

    def __init__(self, calls: HomeserverCalls, *, on_foreign_user: Callable[[str], object] = lambda _: None) -> None:
        """`on_foreign_user` is called with the homeserver's name when it names a user of another server."""
        self._calls = calls
        self._on_foreign_user = on_foreign_user

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
            return self._requester(homeserver, answer)
        raise _refusal(homeserver, status, answer)

    def _requester(self, homeserver: HomeserverConfig, answer: dict[str, Any]) -> Requester:
        user_id, device_id = answer.get("user_id"), answer.get("device_id")
        try:
            parsed = parse_user_id(user_id if isinstance(user_id, str) else "")
        except InvalidParamError as exc:
            raise no_verdict(homeserver, "no valid user_id") from exc
        if parsed.server_name != homeserver.server_name:
            self._on_foreign_user(homeserver.server_name)
            log.warning("foreign_user_refused", server_name=homeserver.server_name, user_server=parsed.server_name)
            raise ForbiddenError("the homeserver answered with a user of another server")
        return Requester(
            str(parsed),
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
