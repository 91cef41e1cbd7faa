"""Opens an import source from its configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mediarepo.config.homeservers import ImportConfig, SourceKind
from mediarepo.importers.dendrite import DendriteSource, load_dendrite_config
from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.key_value.conduit import ConduitSource, load_conduit_config
from mediarepo.importers.key_value.conduit_flat import FlatConduitSource
from mediarepo.importers.key_value.tuwunel import TuwunelSource, load_tuwunel_config
from mediarepo.importers.matrix_media_repo.source import MatrixMediaRepoSource, load_matrix_media_repo_config
from mediarepo.importers.readers.database_address import DatabaseAddress, SqliteAddress, postgres_address
from mediarepo.importers.source import Source
from mediarepo.importers.synapse.config import load_synapse_config
from mediarepo.importers.synapse.http_client import HomeserverGetter
from mediarepo.importers.synapse.http_source import HostedSynapseSource
from mediarepo.importers.synapse.source import SynapseSource

_SQLITE = "sqlite:"


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A source, and the server names whose local media it has."""

    source: Source
    server_names: frozenset[str]


def open_source(name: str, config: ImportConfig) -> OpenSource:
    """Return the reader of a source. Raises SourceConfigError when its files are not understood."""
    if config.kind is not SourceKind.SYNAPSE_HTTP and not config.paths and config.server_name is None:
        raise SourceConfigError(f"imports.{name}: paths must name the configuration files of {config.kind}")
    if config.database is not None and config.kind is not SourceKind.SYNAPSE:
        raise SourceConfigError(f"imports.{name}: database can only be set for synapse")
    opened = _OPENERS[config.kind](name, config)
    if config.server_name is None:
        return opened
    if config.server_name not in opened.server_names:
        told = ", ".join(sorted(opened.server_names))
        raise SourceConfigError(f"imports.{name}: its files name {told}, server_name is {config.server_name}")
    return replace(opened, server_names=frozenset({config.server_name}))


def _synapse(name: str, config: ImportConfig) -> OpenSource:
    read = load_synapse_config(_paths(config), base=_base(config))
    if config.database is not None:
        read = replace(read, database=_address(config.database))
    return OpenSource(SynapseSource(read, name=name, follow_links=config.follow_links), frozenset({read.server_name}))


def _synapse_http(name: str, config: ImportConfig) -> OpenSource:
    if config.url is None or config.admin_token is None or config.server_name is None:
        raise SourceConfigError(f"imports.{name}: synapse-http needs url, admin_token and server_name")
    getter = HomeserverGetter(config.url, config.admin_token.get_secret_value())
    return OpenSource(HostedSynapseSource(getter, config.server_name, name=name), frozenset({config.server_name}))


def _dendrite(name: str, config: ImportConfig) -> OpenSource:
    read = load_dendrite_config(_single(name, config), base=_base(config))
    return OpenSource(DendriteSource(read, name=name, follow_links=config.follow_links), read.server_names)


def _matrix_media_repo(name: str, config: ImportConfig) -> OpenSource:
    read = load_matrix_media_repo_config(_single(name, config), base=_base(config))
    return OpenSource(MatrixMediaRepoSource(read, name=name, follow_links=config.follow_links), read.server_names)


def _conduit(name: str, config: ImportConfig) -> OpenSource:
    path = _single(name, config)
    if path.is_dir():
        if config.server_name is None:
            raise SourceConfigError(f"imports.{name}: a folder of media without a database needs server_name")
        flat = FlatConduitSource(path, config.server_name, name=name, follow_links=config.follow_links)
        return OpenSource(flat, frozenset({config.server_name}))
    read = load_conduit_config(path, base=_base(config))
    return OpenSource(ConduitSource(read, name=name, follow_links=config.follow_links), frozenset({read.server_name}))


def _tuwunel(name: str, config: ImportConfig) -> OpenSource:
    read = load_tuwunel_config(_single(name, config), base=_base(config))
    return OpenSource(TuwunelSource(read, name=name, follow_links=config.follow_links), frozenset({read.server_name}))


_OPENERS: dict[SourceKind, Callable[[str, ImportConfig], OpenSource]] = {
    SourceKind.SYNAPSE: _synapse,
    SourceKind.SYNAPSE_HTTP: _synapse_http,
    SourceKind.DENDRITE: _dendrite,
    SourceKind.MATRIX_MEDIA_REPO: _matrix_media_repo,
    SourceKind.CONDUIT: _conduit,
    SourceKind.TUWUNEL: _tuwunel,
}


def _paths(config: ImportConfig) -> Sequence[Path]:
    return [Path(path) for path in config.paths]


def _single(name: str, config: ImportConfig) -> Path:
    if len(config.paths) != 1:
        raise SourceConfigError(f"imports.{name}: paths must name one file, not {len(config.paths)}")
    return Path(config.paths[0])


def _base(config: ImportConfig) -> Path | None:
    return None if config.base is None else Path(config.base)


def _address(text: str) -> DatabaseAddress:
    if text.startswith(_SQLITE):
        return SqliteAddress(Path(text.removeprefix(_SQLITE)))
    return postgres_address({"dsn": text})
