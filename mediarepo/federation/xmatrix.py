"""The Authorization header of requests between servers (server-server API, "Request Authentication")."""

import re
from dataclasses import dataclass

from mediarepo.errors import InvalidParamError, UnauthorizedError
from mediarepo.federation.canonical_json import canonical_json
from mediarepo.federation.signing import SigningKey
from mediarepo.model.mxc import parse_server_name

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
    """What the header says: who asks whom, and by which key that is proven; old servers leave the destination out."""

    origin: str
    destination: str | None
    key_id: str
    signature: str


def parse_x_matrix(header: str) -> XMatrix:
    """Read the header, tolerantly as the spec asks; UnauthorizedError when it cannot be understood."""
    fields = _fields(header)
    key_id, signature = fields.get("key", ""), fields.get("sig") or fields.get("signature") or ""
    if not _KEY_ID.fullmatch(key_id) or not _SIGNATURE.fullmatch(signature):
        raise UnauthorizedError("the Authorization header names no key or carries no signature")
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
    """Write the header for a request without a body, in the form that the oldest servers understand."""
    signature = key.sign(signed_request(method, request_target, origin, destination))
    return f'X-Matrix origin="{origin}",destination="{destination}",key="{key.key_id}",sig="{signature}"'


def signed_request(method: str, request_target: str, origin: str, destination: str) -> bytes:
    """Write what is signed: the request, with its target exactly as sent."""
    return canonical_json({"method": method, "uri": request_target, "origin": origin, "destination": destination})


def _fields(header: str) -> dict[str, str]:
    scheme = _SCHEME.match(header)
    if scheme is None or len(header) > _MAX_HEADER_CHARS:
        raise UnauthorizedError("expected an Authorization header with the scheme X-Matrix")
    text, at, fields = header[scheme.end() :].strip(" \t,"), 0, dict[str, str]()
    while at < len(text):
        found = _FIELD.match(text, at)
        if found is None:
            raise UnauthorizedError("the Authorization header cannot be understood")
        name, quoted, plain = found.groups()
        if name.lower() in fields:
            raise UnauthorizedError("the Authorization header says something twice")
        fields[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = found.end()
    return fields
