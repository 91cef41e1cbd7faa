"""Reads the media settings of homeserver.yaml."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.readers.coercion import (
    load_files,
    parse_duration_ms,
    parse_size_bytes,
    yaml_entries,
    yaml_section,
    yaml_text,
)
from mediarepo.importers.readers.database_address import DatabaseAddress, SqliteAddress, postgres_address
from mediarepo.importers.readers.source_bucket import BucketAddress

_DAY_MS = 86_400_000
_UPLOAD_BYTES = 50 * 1024 * 1024
_FOLDER_MODULES = frozenset(
    {
        "file_system",
        "synapse.rest.media.v1.storage_provider",
        "synapse.rest.media.v1.storage_provider.FileStorageProviderBackend",
        "synapse.media.storage_provider.FileStorageProviderBackend",
    }
)
_BUCKET_MODULE = "s3_storage_provider.S3StorageProviderBackend"


@dataclass(frozen=True, slots=True)
class FolderProvider:
    """A second folder with the layout of the first."""

    folder: Path


@dataclass(frozen=True, slots=True)
class BucketProvider:
    """A bucket; paths are appended to `prefix` as it stands."""

    address: BucketAddress
    prefix: str


Provider = FolderProvider | BucketProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class SynapseConfig:
    """The settings of Synapse's configuration that an import needs; `unknown_providers` are unsupported modules."""

    server_name: str
    database: DatabaseAddress
    media_store_path: Path
    providers: tuple[Provider, ...] = ()
    unknown_providers: tuple[str, ...] = ()
    unused_expiration_ms: int = _DAY_MS
    max_upload_bytes: int = _UPLOAD_BYTES
    url_preview_enabled: bool = False
    media_repo_enabled: bool = True
    denied_servers: tuple[str, ...] = ()


def load_synapse_config(paths: Iterable[Path], *, base: Path | None = None) -> SynapseConfig:
    """Read homeserver.yaml with whatever overrides it, files or folders of *.yaml in the order Synapse is given them.

    Relative paths in it start at `base`, Synapse's working folder; without one, at the first file's folder. Raises
    SourceConfigError when there is no file, or one cannot be read. Raises SourceConfigError when there is no file, or
    one cannot be read.
    """
    files = list(paths)
    if not files:
        raise SourceConfigError("no configuration file of Synapse is given")
    first = files[0] if files[0].is_dir() else files[0].parent
    return parse_synapse_config(load_files(files), base=base or first)


def parse_synapse_config(document: Mapping[str, object], *, base: Path) -> SynapseConfig:
    """Parse a configuration that was read already. Raises SourceConfigError when it has no server_name."""
    server_name = yaml_text(document.get("server_name"))
    if server_name is None:
        raise SourceConfigError("the configuration has no server_name; give all of Synapse's configuration files")
    providers, unknown = _providers(document, base)
    return SynapseConfig(
        server_name=server_name,
        database=_database(document, base),
        media_store_path=_path(document.get("media_store_path") or "media_store", base),
        providers=tuple(providers),
        unknown_providers=tuple(unknown),
        unused_expiration_ms=parse_duration_ms(document.get("unused_expiration_time"), _DAY_MS),
        max_upload_bytes=parse_size_bytes(document.get("max_upload_size"), _UPLOAD_BYTES),
        url_preview_enabled=bool(document.get("url_preview_enabled", False)),
        media_repo_enabled=bool(document.get("enable_media_repo", True)),
        denied_servers=tuple(map(str, _names(document.get("prevent_media_downloads_from")))),
    )


def _names(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _database(document: Mapping[str, object], base: Path) -> DatabaseAddress:
    databases = yaml_section(document.get("databases"), "databases")
    if databases and "main" not in databases:
        raise SourceConfigError("databases has no main, which is where Synapse keeps media")
    chosen = yaml_section(databases.get("main") if databases else document.get("database"), "database")
    arguments = yaml_section(chosen.get("args"), "database.args")
    name = chosen.get("name", "sqlite3")
    if name == "sqlite3":
        return SqliteAddress(_path(arguments.get("database") or "homeserver.db", base))
    if name == "psycopg2":
        return postgres_address({key: value for key, value in arguments.items() if not key.startswith("cp_")})
    raise SourceConfigError(f"the database is {name!r}; only sqlite3 and psycopg2 are known")


def _providers(document: Mapping[str, object], base: Path) -> tuple[list[Provider], list[str]]:
    found: list[Provider] = []
    unknown: list[str] = []
    for entry in yaml_entries(document.get("media_storage_providers"), "media_storage_providers"):
        provider = yaml_section(entry, "an entry of media_storage_providers")
        module, config = str(provider.get("module")), yaml_section(provider.get("config"), "a provider's config")
        if module in _FOLDER_MODULES:
            found.append(FolderProvider(_path(config.get("directory"), base)))
        elif module == _BUCKET_MODULE:
            found.append(_bucket(config))
        else:
            unknown.append(module)
    if document.get("backup_media_store_path"):
        found.append(FolderProvider(_path(document["backup_media_store_path"], base)))
    return found, unknown


def _bucket(config: Mapping[str, object]) -> BucketProvider:
    bucket = yaml_text(config.get("bucket"))
    if bucket is None:
        raise SourceConfigError("the S3 storage provider's config has no bucket")
    address = BucketAddress(
        bucket=bucket,
        region=yaml_text(config.get("region_name")),
        endpoint_url=yaml_text(config.get("endpoint_url")),
        access_key_id=yaml_text(config.get("access_key_id")),
        secret_access_key=yaml_text(config.get("secret_access_key")),
        session_token=yaml_text(config.get("session_token")),
        customer_key=yaml_text(config.get("sse_customer_key")),
        customer_algorithm=yaml_text(config.get("sse_customer_algo")) or "AES256",
    )
    return BucketProvider(address, yaml_text(config.get("prefix")) or "")


def _path(value: object, base: Path) -> Path:
    if value is None:
        raise SourceConfigError("a folder is missing in media_storage_providers")
    return Path(os.path.abspath(base / str(value)))  # noqa: PTH100 - without following links, which may be the point
