"""Warns of settings that do not work together, or that do nothing as others are."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from mediarepo.config.base import Section
from mediarepo.config.media import OPTIONAL_FORMATS
from mediarepo.config.settings import Settings
from mediarepo.model.media import StoreClass


def config_warnings(settings: Settings) -> list[str]:
    """List them, each in one line that begins with the setting's name."""
    return [
        *_of_redirects(settings),
        *_of_admins(settings),
        *_of_outbound(settings),
        *_of_thumbnails(settings),
        *_of_addresses(settings),
        *_without_effect(settings),
    ]


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
    for one in OPTIONAL_FORMATS:
        if getattr(settings.thumbnails, one.setting) and not one.is_installed:
            yield (
                f"thumbnails.{one.setting}: does nothing, as the extra {one.extra} is not installed "
                f"(pip install 'matrix-mediarepo[{one.extra}]')"
            )


def _of_addresses(settings: Settings) -> Iterator[str]:
    for name, store in settings.stores.items():
        url = urlsplit(store.endpoint_url)
        if store.ca_file is not None and url.scheme == "http":
            yield f"stores.{name}.ca_file: does nothing with an http:// endpoint_url"
        if not store.path_style and _is_address(url.hostname or ""):
            yield f"stores.{name}.path_style: off needs a host name; BUCKET.{url.hostname} is none"
    for homeserver in settings.homeservers:
        url = urlsplit(homeserver.client_api_url or "")
        where = f"homeservers.{homeserver.server_name}"
        if homeserver.ca_file is not None and url.scheme != "https":
            yield f"{where}.ca_file: does nothing without an https:// client_api_url"
        if homeserver.admin_token is not None and homeserver.client_api_url is None:
            yield f"{where}.admin_token: does nothing without client_api_url"
    if settings.database.password is not None and urlsplit(settings.database.url).password:
        yield "database.password: is used, and the one in database.url is not: give one of them"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _without_effect(settings: Settings) -> Iterator[str]:
    """Name settings that stand in the file, and do nothing while another is off."""
    sockets = any(address.startswith("unix:") for address in settings.listen.addresses)
    previews = any(homeserver.url_previews for homeserver in settings.homeservers)
    depending = (
        ("listen", {"socket_mode"}, sockets, "a unix socket among listen.addresses"),
        ("thumbnails", {"dynamic_sizes_per_media"}, settings.thumbnails.dynamic_sizes, "thumbnails.dynamic_sizes"),
        ("federation", {"redirect_lifetime_ms"}, settings.federation.redirect_downloads, "redirect_downloads"),
        ("previews", None, previews, "a homeserver's url_previews"),
    )
    for section, names, effective, condition in depending:
        model = getattr(settings, section)
        given = {name for name in model.model_fields_set if _differs(model, name) and name in (names or {name})}
        if given and not effective:
            yield f"{section}.{min(given)}: does nothing without {condition}"


def _differs(model: Section, name: str) -> bool:
    """Say whether a setting has another value than its default: config.yaml shows defaults as they are."""
    default = type(model).model_fields[name].get_default(call_default_factory=True)
    return bool(getattr(model, name) != default)
