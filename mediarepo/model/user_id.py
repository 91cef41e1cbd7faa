"""Matrix user ids (appendices, "User Identifiers")."""

import re
from dataclasses import dataclass

from mediarepo.errors import InvalidParamError
from mediarepo.model.mxc import parse_server_name

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
