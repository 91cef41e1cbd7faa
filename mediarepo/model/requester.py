"""Who makes a request: the user, the homeserver, and the client for fair shares.

`Client` decides about fairness only, never about rights: who may do something is always passed on explicitly. Every
request sets it, and the tasks that a request starts inherit it.
"""

import fnmatch
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Self

from mediarepo.errors import InvalidParamError
from mediarepo.model.mxc import parse_server_name
from mediarepo.model.request_record import RequestRecord


@dataclass(frozen=True, slots=True)
class Client:
    """The network of a request, and the key of its fair share: that network, a user, or a server.

    `record` is the request's; None for the server's own work.
    """

    network: str
    name: str
    record: RequestRecord | None = field(default=None, compare=False)


_OURSELVES = Client("", "")
_current: ContextVar[Client] = ContextVar("client", default=_OURSELVES)


def current_client() -> Client:
    """Return the client of the current request; an empty name for the server's own work."""
    return _current.get()


def current_record() -> RequestRecord | None:
    """Return the record of the current request; None for the server's own work."""
    return _current.get().record


def begin_request(network: str, record: RequestRecord | None = None) -> None:
    """Use the network's share for what follows, as nothing is authenticated yet."""
    _current.set(Client(network, f"network {network}", record))


def authenticate_client(name: str) -> None:
    """Use the share of the authenticated user or server for what follows."""
    _current.set(replace(_current.get(), name=name))


USER_ID_MAX_BYTES = 255

_CONTROLS = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\ud800-\udfff]")
_HISTORICAL = re.compile(r"[\x21-\x39\x3b-\x7e]+")


@dataclass(frozen=True, slots=True)
class UserId:
    """A parsed user id; made from outside text by `parse_user_id` only."""

    localpart: str
    server_name: str

    def __str__(self) -> str:
        return f"@{self.localpart}:{self.server_name}"


def parse_user_id(text: str, *, ascii_only: bool = False) -> UserId:
    """Parse a user id. Raises InvalidParamError when it is invalid.

    Localparts follow the historical grammar: anything but colons, blanks and control characters. With `ascii_only` they
    are printable ASCII, as are all that application services ever registered.
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
    """A user whose access token the homeserver accepted; `rate_limited` is off for some application services.

    `appservice` is the id of the application service that acts for the user, if one does.
    """

    user_id: str
    server_name: str
    is_guest: bool = False
    device_id: str | None = None
    rate_limited: bool = True
    appservice: str | None = None


def compile_globs(globs: Sequence[str]) -> re.Pattern[str] | None:
    """Compile globs into one pattern that must match the whole text; None for no globs, which match everything."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)) if globs else None


@dataclass(frozen=True, slots=True)
class UserMatcher:
    """Globs of user ids, homeserver names and application service ids; empty ones match everybody."""

    user_ids: re.Pattern[str] | None
    server_names: frozenset[str]
    appservices: frozenset[str]

    @classmethod
    def of(cls, user_ids: Sequence[str], server_names: Sequence[str], appservices: Sequence[str]) -> Self:
        """Make a matcher from the configuration's lists."""
        return cls(compile_globs(user_ids), frozenset(server_names), frozenset(appservices))

    def fits(self, requester: Requester) -> bool:
        """Return whether the requester matches all conditions."""
        return (
            (self.user_ids is None or self.user_ids.match(requester.user_id) is not None)
            and (not self.server_names or requester.server_name in self.server_names)
            and (not self.appservices or requester.appservice in self.appservices)
        )
