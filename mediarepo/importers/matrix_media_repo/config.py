"""What the configuration of matrix-media-repo tells about media."""

from dataclasses import dataclass
from pathlib import Path

from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.reading.addresses import DatabaseAddress, postgres_address
from mediarepo.importers.reading.objects import BucketAddress
from mediarepo.importers.reading.yamls import entries, load_files, section, text

_TRUE = frozenset({"1", "t", "true", "none"})


@dataclass(frozen=True, slots=True)
class FolderDatastore:
    """A folder."""

    datastore_id: str
    folder: Path


@dataclass(frozen=True, slots=True)
class BucketDatastore:
    """A bucket, whose keys are locations."""

    datastore_id: str
    address: BucketAddress


@dataclass(frozen=True, slots=True)
class MatrixMediaRepoConfig:
    """What an import needs; `server_names` are those it serves, `unknown` types of datastores nobody reads here."""

    server_names: frozenset[str]
    database: DatabaseAddress
    datastores: tuple[FolderDatastore | BucketDatastore, ...]
    unknown: tuple[str, ...] = ()


def load_matrix_media_repo_config(path: Path) -> MatrixMediaRepoConfig:
    """Read the configuration's file, or the *.yaml files of its folder, which may each name datastores."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    documents = [load_files([file]) for file in files]
    names = {
        str(section(entry, "a homeserver").get("name"))
        for document in documents
        for entry in entries(document.get("homeservers"), "homeservers")
    } | {str(document["homeserver"]) for document in documents if document.get("homeserver")}
    datastores: dict[str, FolderDatastore | BucketDatastore] = {}
    unknown: set[str] = set()
    for document in documents:
        for entry in entries(document.get("datastores"), "datastores"):
            _add(section(entry, "a datastore"), datastores, unknown)
    if not names:
        raise SourceConfigError(f"{path} names no homeservers")
    return MatrixMediaRepoConfig(frozenset(names), _database(documents, path), (*datastores.values(),), (*unknown,))


def _database(documents: list[dict[str, object]], path: Path) -> DatabaseAddress:
    for document in documents:
        dsn = text(section(document.get("database"), "database").get("postgres"))
        if dsn is not None:
            return postgres_address({"dsn": dsn})
    raise SourceConfigError(f"{path} has no database.postgres")


def _add(entry: dict[str, object], datastores: dict[str, FolderDatastore | BucketDatastore], unknown: set[str]) -> None:
    options, kind, name = section(entry.get("opts"), "opts"), text(entry.get("type")), text(entry.get("id"))
    if name is None:
        raise SourceConfigError("a datastore has no id; matrix-media-repo 1.3 or later is needed")
    if kind == "file":
        folder = text(options.get("path"))
        if folder is None:
            raise SourceConfigError(f"the datastore {name} has no path")
        datastores[name] = FolderDatastore(name, Path(folder))
    elif kind == "s3":
        datastores[name] = BucketDatastore(name, _bucket(name, options))
    else:
        unknown.add(str(kind))


def _bucket(name: str, options: dict[str, object]) -> BucketAddress:
    endpoint, bucket = text(options.get("endpoint")), text(options.get("bucketName"))
    if endpoint is None or bucket is None:
        raise SourceConfigError(f"the datastore {name} has no endpoint or no bucketName")
    scheme = "https" if str(text(options.get("ssl"))).lower() in _TRUE else "http"
    return BucketAddress(
        bucket=bucket,
        region=text(options.get("region")),
        endpoint_url=f"{scheme}://{endpoint}",
        access_key_id=text(options.get("accessKeyId")),
        secret_access_key=text(options.get("accessSecret")),
    )
