"""Whose request is this? Told by its signature (server-server API, "Request Authentication")."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from mediarepo.config.federation import FederationConfig
from mediarepo.errors import ForbiddenError, LimitExceededError, UnauthorizedError, VerificationBusyError
from mediarepo.federation.server_keys import ServerKeyError, ServerKeys
from mediarepo.federation.signing import verify
from mediarepo.federation.xmatrix import XMatrix, parse_x_matrix, signed_request

log = structlog.get_logger(__name__)

_MAX_HEADERS = 5


@dataclass(frozen=True, slots=True)
class Verified:
    """A request whose origin is proven, and the homeserver of ours that it is for."""

    origin: str
    destination: str


class Verification:
    """Checks requests from other servers; `is_ours` tells the server names that we answer for."""

    def __init__(self, config: FederationConfig, keys: ServerKeys, is_ours: Callable[[str], bool]) -> None:
        self._keys = keys
        self._is_ours = is_ours
        self._allowed = _any_of(config.allow_server_names or ["*"])
        self._denied = _any_of(config.deny_server_names)

    async def check(
        self, headers: Sequence[str], *, method: str, request_target: str, host_server_name: str | None
    ) -> Verified:
        """Find out who asks whom, or refuse with UnauthorizedError or ForbiddenError.

        `request_target` is the raw one; `host_server_name` counts where an old server names no destination.
        """
        if not headers:
            raise UnauthorizedError("Missing Authorization headers")
        if len(headers) > _MAX_HEADERS:
            raise UnauthorizedError("Too many Authorization headers")
        said = [parse_x_matrix(header) for header in headers]
        origin, destination = said[0].origin, said[0].destination or host_server_name
        if {one.origin for one in said} != {origin} or {one.destination for one in said} != {said[0].destination}:
            raise UnauthorizedError("the Authorization headers contradict one another")
        if destination is None or not self._is_ours(destination):
            raise UnauthorizedError("the request is not for this server")
        self._check_welcome(origin)
        for one in said:
            if await self._is_signed(one, method, request_target, destination):
                return Verified(origin, destination)
        raise UnauthorizedError(f"the request is not signed by {origin}")

    def _check_welcome(self, origin: str) -> None:
        if self._denied.fullmatch(origin.lower()) or not self._allowed.fullmatch(origin.lower()):
            raise ForbiddenError("this server does not answer yours")

    async def _is_signed(self, said: XMatrix, method: str, request_target: str, destination: str) -> bool:
        if not said.key_id.startswith("ed25519:"):
            return False
        try:
            key = await self._keys.find(said.origin, said.key_id)
        except ServerKeyError as exc:
            log.warning("request_not_verified", origin=said.origin, reason=exc.problem, detail=exc.message)
            return False
        except LimitExceededError as exc:
            log.warning("request_not_verified", origin=said.origin, reason="busy", detail=exc.message)
            raise VerificationBusyError(exc.message, retry_after_s=exc.retry_after_s) from exc
        for target in dict.fromkeys((request_target, request_target.removesuffix("?"))):
            if verify(key, signed_request(method, target, said.origin, destination), said.signature):
                return True
        log.warning("request_not_verified", origin=said.origin, reason="bad_signature", key_id=said.key_id)
        return False


def _any_of(globs: Sequence[str]) -> re.Pattern[str]:
    """Match any of some patterns; none match nothing."""
    return re.compile("|".join(fnmatch.translate(glob.lower()) for glob in globs) or r"(?!)")
