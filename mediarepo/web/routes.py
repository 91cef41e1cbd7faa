"""The table of routes."""

from aiohttp import web

from mediarepo.web.admin import synapse
from mediarepo.web.admin.access import settling
from mediarepo.web.client.download import download, legacy_download
from mediarepo.web.client.info import media_info
from mediarepo.web.client.preview import preview_url
from mediarepo.web.client.thumbnail import legacy_thumbnail, thumbnail
from mediarepo.web.client.uploads import create, media_config, media_usage, upload, upload_to
from mediarepo.web.federation import media as federation
from mediarepo.web.http.headers import expect_later
from mediarepo.web.ops.health import live, metrics, ready

_FEDERATION = ("/_matrix/federation/v1/media", "/_matrix/federation/unstable/org.matrix.msc3916.v2/media")
_ADMIN = "/_synapse/admin/v1"
_CLIENT = "/_matrix/client/v1/media"
_LEGACY = "/_matrix/media/{version:v3|r0|v1}"
_MEDIA = "{server_name:[^/]*}/{media_id:[^/]*}"
_INFO = ("/_matrix/media/unstable/info", "/_matrix/media/unstable/io.t2bot.media/info")
_NAMED = _MEDIA + "/{file_name:[^/]*}"


def add_matrix_routes(app: web.Application) -> None:
    """Add the client-server API's routes."""
    app.router.add_post(f"{_LEGACY}/upload", upload, expect_handler=expect_later)
    app.router.add_put(f"{_LEGACY}/upload/{_MEDIA}", upload_to, expect_handler=expect_later)
    app.router.add_post(f"{_LEGACY}/create", create)
    app.router.add_get(f"{_CLIENT}/download/{_MEDIA}", download)
    app.router.add_get(f"{_CLIENT}/download/{_NAMED}", download)
    app.router.add_get(f"{_CLIENT}/thumbnail/{_MEDIA}", thumbnail)
    app.router.add_get(f"{_CLIENT}/config", media_config)
    app.router.add_get(f"{_CLIENT}/preview_url", preview_url)
    app.router.add_get(f"{_LEGACY}/preview_url", preview_url)
    app.router.add_get(f"{_LEGACY}/download/{_MEDIA}", legacy_download)
    app.router.add_get(f"{_LEGACY}/download/{_NAMED}", legacy_download)
    app.router.add_get(f"{_LEGACY}/thumbnail/{_MEDIA}", legacy_thumbnail)
    app.router.add_get(f"{_LEGACY}/config", media_config)
    for base in _INFO:
        app.router.add_get(f"{base}/{_MEDIA}", media_info)
    app.router.add_get("/_matrix/client/unstable/org.matrix.msc4034/media/usage", media_usage)
    app.router.add_get("/_matrix/media/unstable/org.matrix.msc4034/usage", media_usage)


def add_federation_routes(app: web.Application) -> None:
    """Add the server-server API's routes."""
    for base in _FEDERATION:
        app.router.add_get(f"{base}/download/{{media_id:[^/]*}}", federation.download)
        app.router.add_get(f"{base}/thumbnail/{{media_id:[^/]*}}", federation.thumbnail)


def add_synapse_admin_routes(app: web.Application) -> None:
    """Add the routes of Synapse's admin API."""
    router = app.router
    router.add_get(f"{_ADMIN}/media/quarantine_changes", synapse.quarantine_changes)
    router.add_get(f"{_ADMIN}/media/{_MEDIA}", synapse.media_info)
    router.add_delete(f"{_ADMIN}/media/{_MEDIA}", settling(synapse.delete_media))
    router.add_post(f"{_ADMIN}/media/delete", settling(synapse.delete_by_date_and_size))
    router.add_post(f"{_ADMIN}/media/protect/{{media_id:[^/]*}}", settling(synapse.protect))
    router.add_post(f"{_ADMIN}/media/unprotect/{{media_id:[^/]*}}", settling(synapse.unprotect))
    router.add_post(f"{_ADMIN}/media/{{server_name:[^/]*}}/delete", settling(synapse.delete_by_date_and_size))
    router.add_post(f"{_ADMIN}/purge_media_cache", settling(synapse.purge_remote))
    router.add_post(f"{_ADMIN}/media/quarantine/{_MEDIA}", settling(synapse.quarantine))
    router.add_post(f"{_ADMIN}/media/unquarantine/{_MEDIA}", settling(synapse.unquarantine))
    router.add_post(f"{_ADMIN}/user/{{user_id:[^/]*}}/media/quarantine", settling(synapse.quarantine_user))
    router.add_post(f"{_ADMIN}/room/{{room_id:[^/]*}}/media/quarantine", settling(synapse.quarantine_room))
    router.add_post(f"{_ADMIN}/quarantine_media/{{room_id:[^/]*}}", settling(synapse.quarantine_room))
    router.add_get(f"{_ADMIN}/users/{{user_id:[^/]*}}/media", synapse.list_user_media)
    router.add_delete(f"{_ADMIN}/users/{{user_id:[^/]*}}/media", settling(synapse.delete_user_media))
    router.add_get(f"{_ADMIN}/statistics/users/media", synapse.user_statistics)


def add_operator_routes(app: web.Application) -> None:
    """Add the operator's routes: health and metrics."""
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/metrics", metrics)
