"""Who makes a request: the user, the homeserver, and the client for fair shares.

`Client` decides about fairness only, never about rights: who may do something is always passed on explicitly. Every
request sets it, and the tasks that a request starts inherit it.
"""

import fnmatch
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Self

from mediarepo.errors import InvalidParamError
from mediarepo.model.mxc import parse_server_name


@dataclass(frozen=True, slots=True)
class Client:
    """The network that a request came from, and who shares are counted for: that network, a user, or a server."""

    network: str
    name: str


_OURSELVES = Client("", "")
_current: ContextVar[Client] = ContextVar("client", default=_OURSELVES)


def current_client() -> Client:
    """Return whose work this is; an empty name for the server's own."""
    return _current.get()


def begin_request(network: str) -> None:
    """Count what follows for a network, as nothing is proven yet."""
    _current.set(Client(network, f"network {network}"))


def authenticate_client(name: str) -> None:
    """Count what follows for a user or a server, whose identity was proven."""
    _current.set(replace(_current.get(), name=name))


USER_ID_MAX_BYTES = 255

_CONTROLS = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\ud800-\udfff]")
_HISTORICAL = re.compile(r"[\x21-\x39\x3b-\x7e]+")


@dataclass(frozen=True, slots=True)
class UserId:
    """A user id in its two parts; made from outside text by `parse_user_id` only."""

    localpart: str
    server_name: str

    def __str__(self) -> str:
        return f"@{self.localpart}:{self.server_name}"


def parse_user_id(text: str, *, ascii_only: bool = False) -> UserId:
    """Accept a user id, or raise InvalidParamError.

    Localparts are read as the specification reads historical ones: anything but colons, blanks and control characters.
    With `ascii_only` they are printable ASCII, as all that were ever registered by application services.
    """
    localpart, colon, server_name = text.removeprefix("@").partition(":")
    if not text.startswith("@") or not colon or not localpart:
        raise InvalidParamError("a user id has the form @localpart:server.name")
    if len(text.encode("utf-8", "surrogatepass")) > USER_ID_MAX_BYTES:
        raise InvalidParamError(f"a user id has at most {USER_ID_MAX_BYTES} bytes")
    if _CONTROLS.search(localpart) or (ascii_only and not _HISTORICAL.fullmatch(localpart)):
        raise InvalidParamError("the user id has characters that no user id may have")
    return UserId(localpart, parse_server_name(server_name))


@dataclass(frozen=True, slots=True)
class Requester:
    """A user whose homeserver vouched for the access token; `rate_limited` is off for some application services.

    `appservice` is the id of the application service that acts for the user, if one does.
    """

    user_id: str
    server_name: str
    is_guest: bool = False
    device_id: str | None = None
    rate_limited: bool = True
    appservice: str | None = None


def compile_globs(globs: Sequence[str]) -> re.Pattern[str] | None:
    """Make one pattern of globs that must match as a whole; None when there are none, which stands for everything."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)) if globs else None


@dataclass(frozen=True, slots=True)
class UserMatcher:
    """Globs for user ids, names of homeservers, ids of application services; empty ones match everybody."""

    user_ids: re.Pattern[str] | None
    server_names: frozenset[str]
    appservices: frozenset[str]

    @classmethod
    def of(cls, user_ids: Sequence[str], server_names: Sequence[str], appservices: Sequence[str]) -> Self:
        """Make a matcher of lists as the configuration has them."""
        return cls(compile_globs(user_ids), frozenset(server_names), frozenset(appservices))

    def fits(self, requester: Requester) -> bool:
        """Say whether the requester meets all conditions."""
        return (
            (self.user_ids is None or self.user_ids.match(requester.user_id) is not None)
            and (not self.server_names or requester.server_name in self.server_names)
            and (not self.appservices or requester.appservice in self.appservices)
        )
