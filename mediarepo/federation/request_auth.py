"""Authentication of federation requests (server-server API, "Request Authentication")."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from mediarepo.config.federation import FederationConfig
from mediarepo.config.reload import Derived
from mediarepo.errors import (
    ForbiddenError,
    InvalidParamError,
    LimitExceededError,
    UnauthorizedError,
    VerificationBusyError,
)
from mediarepo.federation.server_keys import ServerKeyError, ServerKeys
from mediarepo.federation.signing import SigningKey, canonical_json, verify
from mediarepo.model.mxc import parse_server_name, spellings

_MAX_HEADER_CHARS = 4096
_SCHEME = re.compile(r"x-matrix[ \t]+", re.ASCII | re.IGNORECASE)
_FIELD = re.compile(
    r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*
        (?: "((?:[^"\\]|\\.)*)" | ([^\s,"]*) )
        [ \t]* (?: , [ \t,]* | $ )""",
    re.ASCII | re.VERBOSE,
)
_KEY_ID = re.compile(r"[a-z0-9_-]{1,32}:[A-Za-z0-9_+/=.-]{1,255}", re.ASCII)
_SIGNATURE = re.compile(r"[A-Za-z0-9+/=]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class XMatrix:
    """A parsed X-Matrix header: origin, key id and signature; old servers leave the destination out."""

    origin: str
    destination: str | None
    key_id: str
    signature: str


def parse_x_matrix(header: str) -> XMatrix:
    """Parse an X-Matrix header, leniently as the spec asks. Raises UnauthorizedError when it is malformed."""
    fields = _fields(header)
    key_id, signature = fields.get("key", ""), fields.get("sig") or fields.get("signature") or ""
    if not _KEY_ID.fullmatch(key_id) or not _SIGNATURE.fullmatch(signature):
        raise UnauthorizedError("the Authorization header has no key or no signature")
    destination = fields.get("destination")
    try:
        return XMatrix(
            origin=parse_server_name(fields.get("origin", "")),
            destination=None if destination is None else parse_server_name(destination),
            key_id=key_id,
            signature=signature,
        )
    except InvalidParamError as exc:
        raise UnauthorizedError("the Authorization header names no valid server") from exc


def sign_request(key: SigningKey, *, method: str, request_target: str, origin: str, destination: str) -> str:
    """Return the Authorization header of a request without a body, in the form that the oldest servers parse."""
    signature = key.sign(signed_request(method, request_target, origin, destination))
    return f'X-Matrix origin="{origin}",destination="{destination}",key="{key.key_id}",sig="{signature}"'


def signed_request(method: str, request_target: str, origin: str, destination: str) -> bytes:
    """Return the bytes that are signed: the request as canonical JSON, its target exactly as sent."""
    return canonical_json({"method": method, "uri": request_target, "origin": origin, "destination": destination})


def _fields(header: str) -> dict[str, str]:
    scheme = _SCHEME.match(header)
    if scheme is None or len(header) > _MAX_HEADER_CHARS:
        raise UnauthorizedError("expected an Authorization header with the scheme X-Matrix")
    text, at, fields = header[scheme.end() :].strip(" \t,"), 0, dict[str, str]()
    while at < len(text):
        found = _FIELD.match(text, at)
        if found is None:
            raise UnauthorizedError("the Authorization header is malformed")
        name, quoted, plain = found.groups()
        if name.lower() in fields:
            raise UnauthorizedError("the Authorization header has a parameter twice")
        fields[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = found.end()
    return fields


log = structlog.get_logger(__name__)

_MAX_HEADERS = 5


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """The verified origin of a request, and the homeserver of ours that it is for."""

    origin: str
    destination: str


class RequestVerifier:
    """Verifies requests from other servers; `is_ours` tells the server names that we serve."""

    def __init__(self, config: FederationConfig, keys: ServerKeys, is_ours: Callable[[str], bool]) -> None:
        self._keys = keys
        self._is_ours = is_ours
        self._allowed = Derived(lambda: config.allow_server_names, lambda globs: _any_of(globs or ["*"]))
        self._denied = Derived(lambda: config.deny_server_names, _any_of)

    async def check(
        self, headers: Sequence[str], *, method: str, request_target: str, host_server_name: str | None
    ) -> VerifiedRequest:
        """Verify a request. Raises UnauthorizedError or ForbiddenError.

        `request_target` is the raw one; `host_server_name` is the destination where an old server names none.
        """
        if not headers:
            raise UnauthorizedError("Missing Authorization headers")
        if len(headers) > _MAX_HEADERS:
            raise UnauthorizedError("Too many Authorization headers")
        said = [parse_x_matrix(header) for header in headers]
        origin, destination = said[0].origin, said[0].destination or host_server_name
        if {one.origin for one in said} != {origin} or {one.destination for one in said} != {said[0].destination}:
            raise UnauthorizedError("the Authorization headers contradict each other")
        if destination is None or not self._is_ours(destination):
            raise UnauthorizedError("the request is not for this server")
        self._check_welcome(origin)
        for one in said:
            if await self._is_signed(one, method, request_target, destination):
                return VerifiedRequest(origin, destination)
        raise UnauthorizedError(f"the request is not signed by {origin}")

    def _check_welcome(self, origin: str) -> None:
        """Refuse who is denied under any spelling of the name, and who is not allowed as it stands."""
        denied = any(map(self._denied().fullmatch, (origin.lower(), *spellings(origin))))
        if denied or not self._allowed().fullmatch(origin.lower()):
            raise ForbiddenError("your server may not request media here")

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
