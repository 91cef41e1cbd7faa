"""Whose request it is: the homeserver it is for, the token it carries, the user behind it."""

from aiohttp import web

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import (
    GuestAccessForbiddenError,
    InvalidParamError,
    MediaHostUnknownError,
    MissingTokenError,
    UnknownTokenError,
)
from mediarepo.model.authority import Grant, Role, grant_of
from mediarepo.model.declared import UNSPEAKABLE
from mediarepo.model.requester import Requester, prove_client
from mediarepo.web.authority import permission_of
from mediarepo.web.keys import IDENTITY, PROXIES, SETTINGS, TENANTS
from mediarepo.web.params import Query

_MAX_TOKEN_CHARS = 4096
_MAX_ASSERTED_CHARS = 1024


def find_tenant(request: web.Request) -> HomeserverConfig | None:
    """Find the homeserver that the request's Host belongs to, if any."""
    return request.app[TENANTS].by_host(request.app[PROXIES].host(request))


def tenant_required(request: web.Request) -> HomeserverConfig:
    """Find the homeserver that the request's Host belongs to."""
    tenant = find_tenant(request)
    if tenant is None:
        raise MediaHostUnknownError("no homeserver with this Host is served here")
    return tenant


async def requester_required(request: web.Request, tenant: HomeserverConfig, query: Query) -> Requester:
    """Identify the user, who may do what the route is for."""
    requester = await request.app[IDENTITY].identify(
        tenant,
        bearer_token(request, query),
        user_id=_asserted(query, "user_id"),
        device_id=_asserted(query, "device_id") or _asserted(query, "org.matrix.msc3202.device_id"),
    )
    prove_client(f"user {requester.user_id}")
    permission, role = permission_of(request), _role_of(requester)
    if grant_of(role, permission.action, permission.thing) is Grant.NO:
        raise GuestAccessForbiddenError("guests may not do this")
    return requester


def _role_of(requester: Requester) -> Role:
    if requester.is_guest:
        return Role.GUEST
    return Role.USER if requester.appservice is None else Role.APPSERVICE


def bearer_token(request: web.Request, query: Query) -> str:
    """Return the access token, from the header or, where that is allowed, from the query.

    The only place where tokens are read: MissingTokenError without one, UnknownTokenError for what no token can be.
    """
    token = _token_of(request, query)
    if not token.isascii() or not token.isprintable() or len(token) > _MAX_TOKEN_CHARS:
        raise UnknownTokenError("the access token is not known")
    return token


def _token_of(request: web.Request, query: Query) -> str:
    headers = request.headers.getall("Authorization", [])
    in_query = query.text("access_token") if request.app[SETTINGS].identity.query_token else None
    if len(headers) > 1:
        raise MissingTokenError("Too many Authorization headers")
    if headers and in_query is not None:
        raise MissingTokenError("Mixing Authorization headers and access_token query parameters")
    if in_query:
        return in_query
    scheme, _, token = headers[0].partition(" ") if headers else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise MissingTokenError("Missing access token")
    return token.strip()


def _asserted(query: Query, name: str) -> str | None:
    value = query.text(name)
    if value is not None and len(value) > _MAX_ASSERTED_CHARS:
        raise UnknownTokenError("the asserted identity is not known")
    if value is not None and UNSPEAKABLE.search(value):
        raise InvalidParamError(f"Query parameter {name} may not contain control characters")
    return value
