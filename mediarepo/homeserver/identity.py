"""Identifies the user behind an access token: application services, cache, whoami; limits unknown tokens."""

import asyncio
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import structlog

from mediarepo.config.homeservers import AppserviceConfig, HomeserverConfig, IdentityConfig
from mediarepo.config.limits import Rate
from mediarepo.errors import (
    ForbiddenError,
    InvalidParamError,
    LimitExceededError,
    MatrixError,
    UnknownDeviceError,
    UnknownTokenError,
    UserLockedError,
)
from mediarepo.homeserver.client import RETRY_AFTER_S, HomeserverClient, no_verdict
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.requester import Requester, current_client, parse_user_id

_MAX_NETWORKS = 100_000
_WAIT_S = 10.0


@dataclass(slots=True)
class _Network:
    """A leaky bucket of failures, and the questions that are under way."""

    seen_ms: int
    failures: float = 0.0
    options: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class TokenFailureLimiter:
    """Limits requests about unknown tokens per client network; known tokens cost nothing."""

    def __init__(self, rate: Callable[[], Rate | None], now_ms: Callable[[], int]) -> None:
        self._rate = rate
        self._now_ms = now_ms
        self._networks: OrderedDict[str, _Network] = OrderedDict()

    @asynccontextmanager
    async def question(self, name: str) -> AsyncIterator[Callable[[], None]]:
        """Allow a request about a token from a network; call the given function when the token turned out unknown.

        Raises LimitExceededError after too many failures. While other tokens of the network are being checked, their
        results are waited for: they may all be valid.
        """
        rate = self._rate()
        if rate is None:
            yield lambda: None
            return
        network = self._network(name)
        await self._wait(network, rate)
        network.options += 1
        try:
            yield lambda: self._fail(network)
        finally:
            network.options -= 1
            network.answered.set()

    async def _wait(self, network: _Network, rate: Rate) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                while not self._has_room(network, rate):
                    network.answered.clear()
                    await network.answered.wait()
        except TimeoutError as exc:
            raise _too_many_failures(1) from exc

    def _has_room(self, network: _Network, rate: Rate) -> bool:
        self._leak(network, rate)
        over = network.failures + 1 - rate.burst
        if over > 0:
            raise _too_many_failures(max(1, -int(-over / rate.per_s // 1)))
        return over + network.options <= 0

    def _fail(self, network: _Network) -> None:
        network.failures += 1

    def _leak(self, network: _Network, rate: Rate) -> None:
        now_ms = self._now_ms()
        network.failures = max(0.0, network.failures - (now_ms - network.seen_ms) / 1000 * rate.per_s)
        network.seen_ms = now_ms

    def _network(self, name: str) -> _Network:
        network = self._networks.setdefault(name, _Network(self._now_ms()))
        self._networks.move_to_end(name)
        while len(self._networks) > _MAX_NETWORKS:
            self._networks.popitem(last=False)
        return network


def _too_many_failures(retry_after_s: int) -> LimitExceededError:
    return LimitExceededError("too many unknown access tokens from this network", retry_after_s=retry_after_s)


log = structlog.get_logger(__name__)

_PATH = "/_matrix/client/v3/account/whoami"


class Whoami:
    """Client of the homeservers' whoami endpoint; a homeserver is trusted for its own users only."""

    def __init__(self, calls: HomeserverClient, *, on_foreign_user: Callable[[str], object] = lambda _: None) -> None:
        """`on_foreign_user` is called with the homeserver's name when it names a user of another server."""
        self._calls = calls
        self._on_foreign_user = on_foreign_user

    async def ask(
        self, homeserver: HomeserverConfig, token: str, *, user_id: str | None, device_id: str | None
    ) -> Requester:
        """Return the user of an access token, as the homeserver's /whoami says.

        Raises UnknownTokenError, UserLockedError or the other error the homeserver answers; HomeserverUnavailableError
        when its answer cannot be understood: an outage is no verdict on a token.
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
            return LimitExceededError("the homeserver limits requests", retry_after_s=RETRY_AFTER_S)
        case _:
            return no_verdict(homeserver, f"status {status}, errcode {errcode}")


def find_appservice(homeserver: HomeserverConfig, token: str) -> AppserviceConfig | None:
    """Find the application service of an as_token, comparing in constant time."""
    found = None
    for appservice in homeserver.appservices:
        secret = appservice.as_token.get_secret_value()
        if hmac.compare_digest(secret.encode(), token.encode("utf-8", "surrogateescape")):
            found = appservice
    return found


def requester_for(
    homeserver: HomeserverConfig, appservice: AppserviceConfig, *, user_id: str | None, device_id: str | None
) -> Requester:
    """Return the user an application service acts for. Raises ForbiddenError outside its namespaces."""
    acting = appservice.sender if user_id is None else user_id
    if acting != appservice.sender and not _owns(appservice, homeserver, acting):
        raise ForbiddenError("the application service may not act for this user")
    return Requester(
        acting,
        homeserver.server_name,
        device_id=device_id,
        rate_limited=appservice.rate_limited,
        appservice=appservice.id,
    )


def _owns(appservice: AppserviceConfig, homeserver: HomeserverConfig, user_id: str) -> bool:
    """Say whether a namespace covers the user; historical characters in it are the namespace's business."""
    try:
        parsed = parse_user_id(user_id, ascii_only=True)
    except InvalidParamError:
        return False
    if parsed.server_name != homeserver.server_name:
        return False
    return any(re.fullmatch(namespace.regex, user_id) for namespace in appservice.namespaces.users)


_Key = tuple[str, bytes, str | None, str | None]
_VERDICTS = (UnknownTokenError, UserLockedError, ForbiddenError, UnknownDeviceError)


@dataclass(frozen=True, slots=True)
class _Verdict:
    answer: Requester | MatrixError
    good_until_ms: int


class IdentityOutcome(StrEnum):
    """How a request was identified: from the cache, as an application service's, by asking, or not."""

    CACHED = "cached"
    APPSERVICE = "appservice"
    ASKED = "asked"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


class Identity:
    """Validates access tokens; caches answers and refusals for a few seconds, outages never."""

    def __init__(
        self,
        config: IdentityConfig,
        whoami: Whoami,
        now_ms: Callable[[], int],
        failures: TokenFailureLimiter,
        on_check: Callable[[IdentityOutcome], object] = lambda _: None,
    ) -> None:
        """`on_check` hears how each request was identified."""
        self._on_check = on_check
        self._config = config
        self._whoami = whoami
        self._now_ms = now_ms
        self._verdicts: OrderedDict[_Key, _Verdict] = OrderedDict()
        self._failures = failures
        self._good: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self.flights = SingleFlight[Requester | MatrixError]()

    async def __aenter__(self) -> Self:
        await self.flights.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.flights.__aexit__(*exc_info)

    async def identify(
        self, homeserver: HomeserverConfig, token: str, *, user_id: str | None = None, device_id: str | None = None
    ) -> Requester:
        """Return the user of a token at this homeserver, or raise why it is not accepted.

        `user_id` and `device_id` are what an application service asserts in the query.
        """
        appservice = find_appservice(homeserver, token)
        if appservice is not None:
            self._on_check(IdentityOutcome.APPSERVICE)
            return requester_for(homeserver, appservice, user_id=user_id, device_id=device_id)
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        key = (homeserver.server_name, digest, user_id, device_id)
        answer = self._remembered(key)
        outcome = IdentityOutcome.CACHED
        if answer is None:
            network, outcome = current_client().network, IdentityOutcome.ASKED
            try:
                answer = await self.flights.run((key, network), lambda: self._ask(homeserver, token, key, network))
            except MatrixError:
                self._on_check(IdentityOutcome.UNAVAILABLE)
                raise
        self._on_check(IdentityOutcome.REFUSED if isinstance(answer, MatrixError) else outcome)
        if isinstance(answer, MatrixError):
            raise answer.with_traceback(None)
        return answer

    def _remembered(self, key: _Key) -> Requester | MatrixError | None:
        verdict = self._verdicts.get(key)
        if verdict is None or verdict.good_until_ms <= self._now_ms():
            return None
        return verdict.answer

    async def _ask(self, homeserver: HomeserverConfig, token: str, key: _Key, network: str) -> Requester | MatrixError:
        """Ask the homeserver; a token that was good before is asked about however many others have failed."""
        if key[:2] in self._good:
            return await self._asked(homeserver, token, key)
        async with self._failures.question(network) as fail:
            answer = await self._asked(homeserver, token, key)
            if isinstance(answer, UnknownTokenError):
                fail()
        return answer

    async def _asked(self, homeserver: HomeserverConfig, token: str, key: _Key) -> Requester | MatrixError:
        answer: Requester | MatrixError
        asked_ms = self._now_ms()
        try:
            answer = await self._whoami.ask(homeserver, token, user_id=key[2], device_id=key[3])
        except _VERDICTS as exc:
            answer = exc
        self._remember_good(key[:2], good=not isinstance(answer, UnknownTokenError))
        self._verdicts[key] = _Verdict(answer, asked_ms + self._config.cache_ms)
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > self._config.cache_entries:
            self._verdicts.popitem(last=False)
        return answer

    def _remember_good(self, token: tuple[str, bytes], *, good: bool) -> None:
        self._good.pop(token, None)
        if good:
            self._good[token] = None
        while len(self._good) > self._config.cache_entries:
            self._good.popitem(last=False)
