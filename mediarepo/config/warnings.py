"""Warnings about settings that are each valid but do not work together."""

import importlib.util
import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from mediarepo.config.settings import Settings
from mediarepo.model.media import StoreClass


def config_warnings(settings: Settings) -> list[str]:
    """List them, each in one line that begins with the setting's name."""
    return [*_of_redirects(settings), *_of_admins(settings), *_of_outbound(settings), *_of_thumbnails(settings)]


def _of_redirects(settings: Settings) -> Iterator[str]:
    if not settings.federation.redirect_downloads:
        return
    for name in sorted({settings.store_for.store_of(StoreClass.LOCAL)}):
        url = urlsplit(settings.stores[name].endpoint_url)
        if url.scheme != "https":
            yield (
                f"federation.redirect_downloads: the store {name} is at {url.scheme}://, where other servers refuse to "
                "follow; give it an https:// endpoint_url or switch the redirects off"
            )
        if _is_private(url.hostname or ""):
            yield f"federation.redirect_downloads: other servers cannot reach {url.hostname}, where the store {name} is"


def _is_private(host: str) -> bool:
    if host == "localhost" or ("." not in host.strip("[]") and ":" not in host):
        return True
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return False


def _of_admins(settings: Settings) -> Iterator[str]:
    admin = settings.admin
    asked = admin.ask_homeserver and any(one.client_api_url is not None for one in settings.homeservers)
    if admin.token is None and not admin.user_ids and not asked:
        yield "admin: nobody can administer over HTTP: there is no token, no user_ids, and no homeserver is asked"


def _of_outbound(settings: Settings) -> Iterator[str]:
    for network in settings.outbound.allow_networks:
        if ipaddress.ip_network(network).prefixlen == 0:
            yield (
                f"outbound.allow_networks: {network} allows every address: users and other servers can then make this "
                "server connect to anything in its own network"
            )


def _of_thumbnails(settings: Settings) -> Iterator[str]:
    if settings.thumbnails.heic and importlib.util.find_spec("pillow_heif") is None:
        yield "thumbnails.heic: the extra heic is not installed (pip install 'matrix-mediarepo[heic]')"
