"""Loads settings from a YAML file, explains what is wrong with it, and warns of settings that do not work together."""

import difflib
import importlib.util
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError

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


_RENAMED = {"rate_limits.strangers": "rate_limits.anonymous"}
"""Settings by their former names."""


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line per problem."""


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: the file is not UTF-8 text") from exc
    return parse_settings(text, where=str(path))


def parse_settings(text: str, *, where: str = "config") -> Settings:
    """Check a configuration given as YAML text; `where` begins each problem's line."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: expected settings such as `database:` at the top level")
    try:
        return Settings.model_validate(document)
    except ValidationError as exc:
        lines = [f"{where}: {_explain(error, document)}" for error in exc.errors(include_input=False)]
        raise ConfigError("\n".join(lines)) from exc


def _explain(error: Any, document: dict[str, Any]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    location = [str(part) for part in error["loc"]]
    place = ".".join(location) or "settings"
    if place in _RENAMED:
        return f"{place}: this setting is called {_RENAMED[place]} now"
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown setting{_did_you_mean(error['loc'], document)}"
    if error["type"] == "missing":
        return f"{place}: this setting is required"
    return f"{place}: {str(error['msg']).removeprefix('Value error, ')}"


def _did_you_mean(location: tuple[str | int, ...], document: dict[str, Any]) -> str:
    known = _known_keys(location[:-1])
    present = _section(location[:-1], document)
    free = [name for name in known if name not in present]
    close = difflib.get_close_matches(str(location[-1]), free or known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"


def _section(location: tuple[str | int, ...], document: Any) -> dict[str, Any]:  # noqa: ANN401 - YAML holds anything
    for part in location:
        document = document[part]
    return document if isinstance(document, dict) else {}


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, str) and part in _fields(model):
            model = _model_within(_fields(model)[part]) or model
    return list(_fields(model))


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _model_within(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_within(argument):
            return found
    return None
