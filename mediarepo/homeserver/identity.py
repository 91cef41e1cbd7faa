"""Whose token is this? Answered by an application service's registration, by memory, or by the homeserver."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from mediarepo.config.homeservers import HomeserverConfig, IdentityConfig
from mediarepo.errors import (
    ForbiddenError,
    MatrixError,
    UnknownDeviceError,
    UnknownTokenError,
    UserLockedError,
)
from mediarepo.homeserver.appservices import find_appservice, requester_for
from mediarepo.homeserver.token_failures import TokenFailureLimiter
from mediarepo.homeserver.whoami import Whoami
from mediarepo.model.client import current_client
from mediarepo.model.requester import Requester
from mediarepo.model.single_flight import SingleFlight

_Key = tuple[str, bytes, str | None, str | None]
_VERDICTS = (UnknownTokenError, UserLockedError, ForbiddenError, UnknownDeviceError)


@dataclass(frozen=True, slots=True)
class _Verdict:
    answer: Requester | MatrixError
    good_until_ms: int


class Identity:
    """Judges access tokens; believes a homeserver's answer for a few seconds, refusals too, outages never."""

    def __init__(
        self,
        config: IdentityConfig,
        whoami: Whoami,
        now_ms: Callable[[], int],
        failures: TokenFailureLimiter,
    ) -> None:
        self._config = config
        self._whoami = whoami
        self._now_ms = now_ms
        self._verdicts: OrderedDict[_Key, _Verdict] = OrderedDict()
        self._failures = failures
        self._good: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._flights = SingleFlight[Requester | MatrixError]()

    async def __aenter__(self) -> Self:
        await self._flights.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._flights.__aexit__(*exc_info)

    async def identify(
        self, homeserver: HomeserverConfig, token: str, *, user_id: str | None = None, device_id: str | None = None
    ) -> Requester:
        """Return whose token it is at this homeserver, or raise why it is not accepted.

        `user_id` and `device_id` are what an application service asserts in the query.
        """
        appservice = find_appservice(homeserver, token)
        if appservice is not None:
            return requester_for(homeserver, appservice, user_id=user_id, device_id=device_id)
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        key = (homeserver.server_name, digest, user_id, device_id)
        answer = self._remembered(key)
        if answer is None:
            network = current_client().network
            answer = await self._flights.run((key, network), lambda: self._ask(homeserver, token, key, network))
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
