"""What the configuration of matrix-media-repo tells about media."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.reading.addresses import DatabaseAddress, postgres_address
from mediarepo.importers.reading.objects import BucketAddress
from mediarepo.importers.reading.yamls import entries, load_files, section, text

_TRUE = frozenset({"1", "t", "true", "none"})


@dataclass(frozen=True, slots=True)
class FolderDatastore:
    """A folder; `kinds` are what it takes, as in local_media or all; `guessed` says that nobody said where it is."""

    datastore_id: str
    folder: Path
    kinds: frozenset[str] = frozenset()
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class BucketDatastore:
    """A bucket, whose keys are locations; new ones get a slash behind `prefix_length` characters."""

    datastore_id: str
    address: BucketAddress
    kinds: frozenset[str] = frozenset()
    prefix_length: int = 0


@dataclass(frozen=True, slots=True)
class MatrixMediaRepoConfig:
    """What an import needs; `server_names` are those it serves, `unknown` types of datastores nobody reads here."""

    server_names: frozenset[str]
    database: DatabaseAddress
    datastores: tuple[FolderDatastore | BucketDatastore, ...]
    unknown: tuple[str, ...] = ()


def load_matrix_media_repo_config(path: Path, *, base: Path | None = None) -> MatrixMediaRepoConfig:
    """Read the configuration's file, or its folder, as matrix-media-repo does.

    Of a folder every file counts, whatever its name, in the order of names; a later file's top-level keys replace an
    earlier one's. A file with `homeserver: NAME` is that homeserver's own and replaces nothing for others. Relative
    paths start at `base`, the working folder of matrix-media-repo, or at the configuration's own folder.
    """
    main: dict[str, object] = {}
    domains: dict[str, dict[str, object]] = {}
    for file in _files(path):
        document = load_files([file])
        name = document.get("homeserver")
        (domains.setdefault(name, {}) if isinstance(name, str) else main).update(document)
    configured = [section(entry, "a homeserver") for entry in entries(main.get("homeservers"), "homeservers")]
    names = {str(entry.get("name")) for entry in configured} | set(domains)
    if not names:
        raise SourceConfigError(f"{path} names no homeservers")
    datastores: dict[str, FolderDatastore | BucketDatastore] = {}
    unknown: set[str] = set()
    for document in (main, *(domains[name] for name in sorted(domains))):
        for entry in entries(document.get("datastores"), "datastores"):
            _add(section(entry, "a datastore"), datastores, unknown, bases=_bases(path, base))
    return MatrixMediaRepoConfig(frozenset(names), _database(main, path), (*datastores.values(),), (*unknown,))


def _files(path: Path) -> list[Path]:
    """List the files that matrix-media-repo reads; folders in its folder are passed over, links to them too."""
    if not path.is_dir():
        return [path]
    try:
        return sorted((file for file in path.iterdir() if not file.is_dir()), key=os.fsencode)
    except OSError as exc:
        raise SourceConfigError(f"{path} cannot be read: {exc.strerror}") from exc


@dataclass(frozen=True, slots=True)
class _Bases:
    """The folders at which relative paths may start, and whether nobody said which."""

    folders: Sequence[Path]
    guessed: bool


def _bases(path: Path, base: Path | None) -> _Bases:
    """Take the base; without one the configuration's folder, or of a folder of files its parent as well."""
    if base is not None:
        return _Bases([base], guessed=False)
    return _Bases([path, path.parent] if path.is_dir() else [path.parent], guessed=True)


def _database(main: dict[str, object], path: Path) -> DatabaseAddress:
    dsn = text(section(main.get("database"), "database").get("postgres"))
    if dsn is None:
        raise SourceConfigError(f"{path} has no database.postgres")
    return postgres_address({"dsn": dsn})


def _add(
    entry: dict[str, object],
    datastores: dict[str, FolderDatastore | BucketDatastore],
    unknown: set[str],
    *,
    bases: _Bases,
) -> None:
    """Note a datastore; the first of an id counts."""
    options, kind, name = section(entry.get("opts"), "opts"), text(entry.get("type")), text(entry.get("id"))
    if name is None:
        raise SourceConfigError("a datastore has no id; matrix-media-repo 1.3 or later is needed")
    if name in datastores:
        return
    kinds = frozenset(str(one) for one in entries(entry.get("forKinds"), "forKinds"))
    if kind == "file":
        folder = text(options.get("path"))
        if folder is None:
            raise SourceConfigError(f"the datastore {name} has no path")
        places = [Path(os.path.abspath(one / folder)) for one in bases.folders]  # noqa: PTH100 - links are judged later
        guessed = bases.guessed and not Path(folder).is_absolute()
        datastores[name] = FolderDatastore(
            name, next((one for one in places if one.is_dir()), places[0]), kinds, guessed
        )
    elif kind == "s3":
        datastores[name] = BucketDatastore(name, _bucket(name, options), kinds, _prefix_length(options))
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


def _prefix_length(options: dict[str, object]) -> int:
    """Read a number of characters as Go does, to which anything else is none."""
    try:
        return max(0, int(text(options.get("prefixLength")) or 0))
    except ValueError:
        return 0
