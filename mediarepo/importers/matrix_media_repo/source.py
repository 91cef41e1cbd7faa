"""The matrix-media-repo source: its configuration, and media in its datastores."""

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from mediarepo.importers.errors import SourceConfigError, SourceError
from mediarepo.importers.matrix_media_repo.tables import MatrixMediaRepoTables
from mediarepo.importers.readers.byte_source import ByteSource
from mediarepo.importers.readers.coercion import load_files, yaml_entries, yaml_section, yaml_text
from mediarepo.importers.readers.database_address import DatabaseAddress, open_database, postgres_address
from mediarepo.importers.readers.merge_join import BytePlaces, MergeJoin
from mediarepo.importers.readers.source_base import BaseSource, check_byte_sources, probe_originals, wall_clock_ms
from mediarepo.importers.readers.source_bucket import Bucket, BucketAddress, BucketByteSource
from mediarepo.importers.readers.source_database import amap
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.model.import_source import (
    SAMPLES,
    PreflightReport,
    SourceItem,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
    UnclaimedBytes,
)

_TRUE = frozenset({"1", "t", "true", "none"})


@dataclass(frozen=True, slots=True)
class FolderDatastore:
    """A folder; `kinds` are what it takes, such as local_media or all; `guessed` when its path is not configured."""

    datastore_id: str
    folder: Path
    kinds: frozenset[str] = frozenset()
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class BucketDatastore:
    """A bucket whose keys are locations; new ones get a slash after `prefix_length` characters."""

    datastore_id: str
    address: BucketAddress
    kinds: frozenset[str] = frozenset()
    prefix_length: int = 0


@dataclass(frozen=True, slots=True)
class MatrixMediaRepoConfig:
    """The settings an import needs; `server_names` are those served, `unknown` unsupported datastore types."""

    server_names: frozenset[str]
    database: DatabaseAddress
    datastores: tuple[FolderDatastore | BucketDatastore, ...]
    unknown: tuple[str, ...] = ()


def load_matrix_media_repo_config(path: Path, *, base: Path | None = None) -> MatrixMediaRepoConfig:
    """Read the configuration's file, or its folder, as matrix-media-repo does.

    Of a folder every file counts, whatever its name, in the order of names; a later file's top-level keys replace an
    earlier one's. A file with `homeserver: NAME` is that homeserver's own and replaces nothing for others. Relative
    paths start at `base`, the working folder of matrix-media-repo, or at the configuration's own folder. Raises
    SourceConfigError when it cannot be read or names no homeserver. Raises SourceConfigError when it cannot be read or
    names no homeserver.
    """
    main: dict[str, object] = {}
    domains: dict[str, dict[str, object]] = {}
    for file in _files(path):
        document = load_files([file])
        name = document.get("homeserver")
        (domains.setdefault(name, {}) if isinstance(name, str) else main).update(document)
    configured = [yaml_section(entry, "a homeserver") for entry in yaml_entries(main.get("homeservers"), "homeservers")]
    names = {str(entry.get("name")) for entry in configured} | set(domains)
    if not names:
        raise SourceConfigError(f"{path} names no homeservers")
    datastores: dict[str, FolderDatastore | BucketDatastore] = {}
    unknown: set[str] = set()
    for document in (main, *(domains[name] for name in sorted(domains))):
        for entry in yaml_entries(document.get("datastores"), "datastores"):
            _add(yaml_section(entry, "a datastore"), datastores, unknown, bases=_bases(path, base))
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
    dsn = yaml_text(yaml_section(main.get("database"), "database").get("postgres"))
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
    options, kind, name = (
        yaml_section(entry.get("opts"), "opts"),
        yaml_text(entry.get("type")),
        yaml_text(entry.get("id")),
    )
    if name is None:
        raise SourceConfigError("a datastore has no id; matrix-media-repo 1.3 or later is needed")
    if name in datastores:
        return
    kinds = frozenset(str(one) for one in yaml_entries(entry.get("forKinds"), "forKinds"))
    if kind == "file":
        folder = yaml_text(options.get("path"))
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
    endpoint, bucket = yaml_text(options.get("endpoint")), yaml_text(options.get("bucketName"))
    if endpoint is None or bucket is None:
        raise SourceConfigError(f"the datastore {name} has no endpoint or no bucketName")
    scheme = "https" if str(yaml_text(options.get("ssl"))).lower() in _TRUE else "http"
    return BucketAddress(
        bucket=bucket,
        region=yaml_text(options.get("region")),
        endpoint_url=f"{scheme}://{endpoint}",
        access_key_id=yaml_text(options.get("accessKeyId")),
        secret_access_key=yaml_text(options.get("accessSecret")),
    )


def _prefix_length(options: dict[str, object]) -> int:
    """Read a number of characters as Go does, to which anything else is none."""
    try:
        return max(0, int(yaml_text(options.get("prefixLength")) or 0))
    except ValueError:
        return 0


_FRESH_MS = 10 * 60 * 1000


class MatrixMediaRepoSource(BaseSource):
    """A Source. A row's `filesystem_id` is its datastore's id, a slash, and its location there."""

    def __init__(
        self,
        config: MatrixMediaRepoConfig,
        *,
        name: str = "mmr",
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self.database = open_database(config.database)
        self.tables = MatrixMediaRepoTables(self.database, server_names=config.server_names)
        byte_sources = [_shelf(datastore, follow_links=follow_links) for datastore in config.datastores]
        super().__init__(name, self.database, byte_sources, now_ms=now_ms)

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:
        """Check the tables, every datastore, and a few originals."""
        findings = PreflightReport(facts=[f"the server names are {', '.join(sorted(self.config.server_names))}"])
        findings.problems += [f"datastores of type {kind} are not supported" for kind in self.config.unknown]
        await check_byte_sources(self.byte_sources, findings)
        try:
            await self.tables.look_at(findings)
            findings.warnings.extend(self.database.warnings)
            if findings.usable:
                await self._look_at_datastores(findings)
                await probe_originals(self, self.media(), findings, count=tries)
        except SourceError as exc:
            findings.problems.append(str(exc))
        return findings

    async def _look_at_datastores(self, findings: PreflightReport) -> None:
        configured = {byte_source.name for byte_source in self.byte_sources}
        for name, count in (await self.tables.datastores()).items():
            findings.facts.append(f"{count} media lie in the datastore {name}")
            if name not in configured:
                findings.problems.append(f"{count} media lie in the datastore {name!r}, which is not configured")

    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over all media in the order of their keys, reserved ids included."""
        return self.tables.media(after)

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now."""
        return await self.tables.get(server_name, media_id)

    async def reserved(self) -> list[SourceKey]:
        """Return the addresses that were media once, and must never be given to other media."""
        return await self.tables.reserved()

    def place(self, media: SourceMedia) -> BytePlaces:
        """Return the location of a row's bytes in its datastore."""
        if media.pending:
            return BytePlaces(media, "")
        location = _location(media.filesystem_id)
        return BytePlaces(media, location, None if location else "the row has no location")

    def byte_sources_of(self, filesystem_id: str | None) -> Sequence[ByteSource]:
        """Return the datastore of a row's bytes: the row names it."""
        name = (filesystem_id or "").partition("/")[0]
        return [byte_source for byte_source in self.byte_sources if byte_source.name == name]

    async def located(self) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Iterate over all media and bytes, one datastore after the other; then media without one."""
        for byte_source in self.byte_sources:
            joining = MergeJoin(
                [byte_source], started_ts=self._now_ms() - _FRESH_MS, is_known=self.tables.is_known(byte_source.name)
            )
            places = amap(self.tables.by_place(byte_source.name), _placed)
            async with aclosing(joining.join(places, "")) as meetings:
                async for met in meetings:
                    yield met
        async with aclosing(self.tables.media(None)) as rows:
            async for media in rows:
                if media.pending or not self.byte_sources_of(media.filesystem_id):
                    yield SourceItem(media, await self.locate(media))

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over the thumbnails of one piece of media."""
        for thumbnail in await self.tables.thumbnails(media):
            yield thumbnail

    def all_thumbnails(self) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over all thumbnails, by their locations."""
        return self.tables.all_thumbnails()

    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Return a thumbnail's location."""
        location = _location(thumbnail.filesystem_id)
        return [location] if location else []


def _placed(found: tuple[str, SourceMedia | None]) -> BytePlaces:
    location, media = found
    return BytePlaces(media, location, None if location else "the row has no location")


def _location(filesystem_id: str | None) -> str | None:
    return (filesystem_id or "").partition("/")[2] or None


def _shelf(datastore: FolderDatastore | BucketDatastore, *, follow_links: bool) -> ByteSource:
    if isinstance(datastore, FolderDatastore):
        return FolderByteSource(datastore.datastore_id, datastore.folder, follow_links=follow_links)
    return BucketByteSource(datastore.datastore_id, Bucket(datastore.address), prefix="")
