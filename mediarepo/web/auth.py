"""Authenticates a request: the homeserver, the access token, the user, and the permission it needs."""

from dataclasses import dataclass
from time import perf_counter

from aiohttp import web

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.errors import (
    GuestAccessForbiddenError,
    InvalidParamError,
    MediaHostUnknownError,
    MissingTokenError,
    UnknownTokenError,
)
from mediarepo.model.authority import Action, Grant, Role, Thing, grant_of
from mediarepo.model.declared import UNSPEAKABLE
from mediarepo.model.request_record import Stage
from mediarepo.model.requester import Requester, authenticate_client
from mediarepo.web.keys import IDENTITY, PROXIES, RECORD, SETTINGS, TENANTS
from mediarepo.web.params import Query


@dataclass(frozen=True, slots=True)
class RequiredPermission:
    """The action of a request and the thing it acts on; `of_path`: the media, or the user, that its path names."""

    action: Action
    thing: Thing
    of_path: bool = False


_ADMIN = "/_synapse/admin/v1"
_CLIENT = "/_matrix/client/v1/media"
_LEGACY = "/_matrix/media/{version}"
_FEDERATION = ("/_matrix/federation/v1/media", "/_matrix/federation/unstable/org.matrix.msc3916.v2/media")
_MEDIA = "{server_name}/{media_id}"
_UPLOAD = RequiredPermission(Action.UPLOAD, Thing.OWN_MEDIA)
_DOWNLOAD = RequiredPermission(Action.DOWNLOAD, Thing.OWN_MEDIA, of_path=True)
_DOWNLOAD_LEGACY = RequiredPermission(Action.DOWNLOAD_LEGACY, Thing.OWN_MEDIA, of_path=True)
_PREVIEW = RequiredPermission(Action.SEE, Thing.PREVIEW)
_LIMITS = RequiredPermission(Action.READ, Thing.CONFIGURATION)
_USAGE = RequiredPermission(Action.READ, Thing.USAGE)
_DELETE_OWN = RequiredPermission(Action.DELETE, Thing.OWN_MEDIA)
_HIDE_ROOM = RequiredPermission(Action.HIDE, Thing.ROOM)
_HEALTH = RequiredPermission(Action.READ, Thing.HEALTH)

ROUTES: dict[tuple[str, str], RequiredPermission] = {
    ("POST", f"{_LEGACY}/upload"): _UPLOAD,
    ("PUT", f"{_LEGACY}/upload/{_MEDIA}"): _UPLOAD,
    ("POST", f"{_LEGACY}/create"): _UPLOAD,
    ("GET", f"{_CLIENT}/download/{_MEDIA}"): _DOWNLOAD,
    ("GET", f"{_CLIENT}/download/{_MEDIA}/{{file_name}}"): _DOWNLOAD,
    ("GET", f"{_CLIENT}/thumbnail/{_MEDIA}"): _DOWNLOAD,
    ("GET", f"{_CLIENT}/config"): _LIMITS,
    ("GET", f"{_CLIENT}/preview_url"): _PREVIEW,
    ("GET", f"{_LEGACY}/preview_url"): _PREVIEW,
    ("GET", f"{_LEGACY}/download/{_MEDIA}"): _DOWNLOAD_LEGACY,
    ("GET", f"{_LEGACY}/download/{_MEDIA}/{{file_name}}"): _DOWNLOAD_LEGACY,
    ("GET", f"{_LEGACY}/thumbnail/{_MEDIA}"): _DOWNLOAD_LEGACY,
    ("GET", f"{_LEGACY}/config"): _LIMITS,
    ("GET", f"/_matrix/media/unstable/info/{_MEDIA}"): _DOWNLOAD,
    ("GET", f"/_matrix/media/unstable/io.t2bot.media/info/{_MEDIA}"): _DOWNLOAD,
    ("GET", "/_matrix/client/unstable/org.matrix.msc4034/media/usage"): _USAGE,
    ("GET", "/_matrix/media/unstable/org.matrix.msc4034/usage"): _USAGE,
    **{
        ("GET", f"{base}/{kind}/{{media_id}}"): RequiredPermission(Action.DOWNLOAD, Thing.OWN_MEDIA)
        for base in _FEDERATION
        for kind in ("download", "thumbnail")
    },
    ("GET", f"{_ADMIN}/media/quarantine_changes"): RequiredPermission(Action.SEE, Thing.OWN_MEDIA),
    ("GET", f"{_ADMIN}/media/{_MEDIA}"): RequiredPermission(Action.SEE, Thing.OWN_MEDIA, of_path=True),
    ("DELETE", f"{_ADMIN}/media/{_MEDIA}"): _DELETE_OWN,
    ("POST", f"{_ADMIN}/media/delete"): _DELETE_OWN,
    ("POST", f"{_ADMIN}/media/{{server_name}}/delete"): _DELETE_OWN,
    ("POST", f"{_ADMIN}/media/protect/{{media_id}}"): RequiredPermission(Action.PROTECT, Thing.OWN_MEDIA),
    ("POST", f"{_ADMIN}/media/unprotect/{{media_id}}"): RequiredPermission(Action.UNPROTECT, Thing.OWN_MEDIA),
    ("POST", f"{_ADMIN}/purge_media_cache"): RequiredPermission(Action.PURGE, Thing.REMOTE_MEDIA),
    ("POST", f"{_ADMIN}/media/quarantine/{_MEDIA}"): RequiredPermission(Action.HIDE, Thing.OWN_MEDIA, of_path=True),
    ("POST", f"{_ADMIN}/media/unquarantine/{_MEDIA}"): RequiredPermission(Action.UNHIDE, Thing.OWN_MEDIA, of_path=True),
    ("POST", f"{_ADMIN}/user/{{user_id}}/media/quarantine"): RequiredPermission(
        Action.HIDE, Thing.OWN_USER, of_path=True
    ),
    ("POST", f"{_ADMIN}/room/{{room_id}}/media/quarantine"): _HIDE_ROOM,
    ("POST", f"{_ADMIN}/quarantine_media/{{room_id}}"): _HIDE_ROOM,
    ("GET", f"{_ADMIN}/users/{{user_id}}/media"): RequiredPermission(Action.SEE, Thing.OWN_USER),
    ("DELETE", f"{_ADMIN}/users/{{user_id}}/media"): RequiredPermission(Action.DELETE, Thing.OWN_USER),
    ("GET", f"{_ADMIN}/statistics/users/media"): RequiredPermission(Action.SEE, Thing.OWN_USER),
    ("GET", "/health/live"): _HEALTH,
    ("GET", "/health/ready"): _HEALTH,
    ("GET", "/metrics"): _HEALTH,
    ("GET", "/_mediarepo/admin/v1/openapi.json"): _HEALTH,
    ("GET", "/_mediarepo/admin/v1/docs"): _HEALTH,
}
"""The routes besides those of our own admin API, whose endpoints say it themselves; HEAD requires what GET does."""


def required_permission(request: web.Request) -> RequiredPermission:
    """Return the permission that a request requires."""
    resource = request.match_info.route.resource
    method = "GET" if request.method == "HEAD" else request.method
    return ROUTES[method, "" if resource is None else resource.canonical]


_MAX_TOKEN_CHARS = 4096
_MAX_ASSERTED_CHARS = 1024


def find_tenant(request: web.Request) -> HomeserverConfig | None:
    """Return the homeserver of the request's Host, or None."""
    tenant = request.app[TENANTS].by_host(request.app[PROXIES].host(request))
    if tenant is not None:
        request[RECORD].homeserver = tenant.server_name
    return tenant


def tenant_required(request: web.Request) -> HomeserverConfig:
    """Return the homeserver of the request's Host. Raises MediaHostUnknownError when none is served under it."""
    tenant = find_tenant(request)
    if tenant is None:
        raise MediaHostUnknownError("this Host is not one of a homeserver served here")
    return tenant


async def requester_required(request: web.Request, tenant: HomeserverConfig, query: Query) -> Requester:
    """Authenticate the user, and check the route's permission. Raises GuestAccessForbiddenError when guests lack it."""
    record = request[RECORD]
    began = perf_counter()
    try:
        requester = await request.app[IDENTITY].identify(
            tenant,
            bearer_token(request, query),
            user_id=_asserted(query, "user_id"),
            device_id=_asserted(query, "device_id") or _asserted(query, "org.matrix.msc3202.device_id"),
        )
    finally:
        record.note(Stage.IDENTITY, began)
    record.user_id = requester.user_id
    authenticate_client(f"user {requester.user_id}")
    permission, role = required_permission(request), _role_of(requester)
    if grant_of(role, permission.action, permission.thing) is Grant.NO:
        raise GuestAccessForbiddenError("guests may not do this")
    return requester


def _role_of(requester: Requester) -> Role:
    if requester.is_guest:
        return Role.GUEST
    return Role.USER if requester.appservice is None else Role.APPSERVICE


def bearer_token(request: web.Request, query: Query) -> str:
    """Return the access token, from the header or, where that is allowed, from the query.

    The only place where tokens are read. Raises MissingTokenError without one, UnknownTokenError for an impossible one.
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
