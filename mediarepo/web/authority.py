"""The permission each route requires, from the table of authority; a route that is not here may be used by nobody."""

from dataclasses import dataclass

from aiohttp import web

from mediarepo.model.authority import Action, Thing


@dataclass(frozen=True, slots=True)
class RequiredPermission:
    """What a request wants to do, and to what; `of_path`: to the media, or the user, that its path names."""

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


def permission_of(request: web.Request) -> RequiredPermission:
    """Look up the permission that a request requires."""
    resource = request.match_info.route.resource
    method = "GET" if request.method == "HEAD" else request.method
    return ROUTES[method, "" if resource is None else resource.canonical]
