"""What takes media out of here, joined by hand."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.db.exporting import ExportTable
from mediarepo.db.healing import Healing
from mediarepo.db.sweeping import Sweeping
from mediarepo.exporters.buckets import BucketPlace
from mediarepo.exporters.errors import ExportError
from mediarepo.exporters.files.archives import Archive, FolderArchive
from mediarepo.exporters.files.tar import TarArchive
from mediarepo.exporters.folders import FolderPlace
from mediarepo.exporters.matrix_media_repo.recording import MatrixMediaRepoRecording
from mediarepo.exporters.places import BytesPlace
from mediarepo.exporters.synapse.databases import open_for_writing
from mediarepo.exporters.synapse.recording import DatabaseRecording, FileRecording
from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.matrix_media_repo.config import (
    BucketDatastore,
    FolderDatastore,
    MatrixMediaRepoConfig,
    load_matrix_media_repo_config,
)
from mediarepo.importers.synapse.config import BucketProvider, SynapseConfig, load_synapse_config
from mediarepo.services.exports.contents import Contents
from mediarepo.services.exports.files import FilesExport
from mediarepo.services.exports.matrix_media_repo import Datastore, MatrixMediaRepoExport
from mediarepo.services.exports.synapse import SynapseExport
from mediarepo.services.markers import Markers

_STDOUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class SynapseTarget:
    """Where a Synapse is; bytes go into its folder or its bucket, rows into its database or into the file `sql`."""

    config: SynapseConfig
    into_bucket: bool = False
    sql: Path | None = None


def read_synapse_config(paths: list[Path]) -> SynapseConfig:
    """Read homeserver.yaml, or raise ExportError."""
    try:
        return load_synapse_config(paths)
    except SourceConfigError as exc:
        raise ExportError(str(exc)) from exc


@asynccontextmanager
async def open_synapse_export(foundation: Foundation, target: SynapseTarget) -> AsyncIterator[SynapseExport]:
    """Open a Synapse's database and folder, or what stands for them."""
    config = target.config
    recording: DatabaseRecording | FileRecording
    if target.sql is not None:
        recording = FileRecording(target.sql)
    else:
        recording = DatabaseRecording(open_for_writing(config.database), config.server_name)
    async with _place_of(target) as place, recording:
        yield SynapseExport(
            table=ExportTable(foundation.database),
            contents=_contents_of(foundation),
            bytes_place=place,
            recording=recording,
            server_name=config.server_name,
        )


def _place_of(target: SynapseTarget) -> FolderPlace | BucketPlace:
    if not target.into_bucket:
        return FolderPlace(target.config.media_store_path)
    for provider in target.config.providers:
        if isinstance(provider, BucketProvider):
            return BucketPlace(provider.address, prefix=provider.prefix)
    raise ExportError("there is no S3 storage provider in Synapse's configuration, so there is no bucket to write into")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixMediaRepoTarget:
    """Where a matrix-media-repo is; `datastore` takes everything, in place of what its configuration says."""

    config: MatrixMediaRepoConfig
    datastore: str | None = None


def read_matrix_media_repo_config(path: Path, base: Path | None) -> MatrixMediaRepoConfig:
    """Read its configuration's file or folder, or raise ExportError."""
    try:
        return load_matrix_media_repo_config(path, base=base)
    except SourceConfigError as exc:
        raise ExportError(str(exc)) from exc


@asynccontextmanager
async def open_matrix_media_repo_export(
    foundation: Foundation, target: MatrixMediaRepoTarget
) -> AsyncIterator[MatrixMediaRepoExport]:
    """Open the database and all datastores of a matrix-media-repo."""
    config = target.config
    local, remote = (_datastore_for(target, kind) for kind in ("local_media", "remote_media"))
    recording = MatrixMediaRepoRecording(open_for_writing(config.database), config.server_names)
    async with AsyncExitStack() as stack:
        places: dict[str, BytesPlace] = {}
        for one in config.datastores:
            place = _place(one)
            await stack.enter_async_context(place)
            places[one.datastore_id] = place
        await stack.enter_async_context(recording)
        yield MatrixMediaRepoExport(
            table=ExportTable(foundation.database),
            contents=_contents_of(foundation),
            places=places,
            local=local,
            remote=remote,
            recording=recording,
            server_names=config.server_names,
        )


def _datastore_for(target: MatrixMediaRepoTarget, kind: str) -> Datastore:
    """Choose the first datastore that takes a kind of media, as matrix-media-repo would with a single one."""
    for one in target.config.datastores:
        chosen = target.datastore == one.datastore_id if target.datastore else {kind, "all"} & one.kinds
        if chosen:
            is_folder = isinstance(one, FolderDatastore)
            return Datastore(one.datastore_id, is_folder, 0 if isinstance(one, FolderDatastore) else one.prefix_length)
    raise ExportError(
        f"there is no datastore {target.datastore}" if target.datastore else f"no datastore there is for {kind}"
    )


def _place(datastore: FolderDatastore | BucketDatastore) -> FolderPlace | BucketPlace:
    if isinstance(datastore, BucketDatastore):
        return BucketPlace(datastore.address, prefix="")
    if datastore.guessed and not datastore.folder.is_dir():
        words = "matrix-media-repo's relative paths start at its working folder: say --base"
        raise ExportError(f"the folder {datastore.folder} of {datastore.datastore_id} is not there; {words}")
    return FolderPlace(datastore.folder)


def _archive_of(output: Path) -> Archive:
    if output != _STDOUT and output.suffix != ".tar":
        return FolderArchive(output)
    path = None if output == _STDOUT else output
    return TarArchive(path, output=sys.stdout.buffer, now_s=now_ms() // 1000)


@asynccontextmanager
async def open_files_export(foundation: Foundation, output: Path) -> AsyncIterator[FilesExport]:
    """Open a folder, or a tar file when the name says so; a single dash is standard output."""
    async with _archive_of(output) as archive:
        contents = _contents_of(foundation)
        yield FilesExport(table=ExportTable(foundation.database), contents=contents, archive=archive)


def _contents_of(foundation: Foundation) -> Contents:
    database = foundation.database
    markers = Markers(sweeping=Sweeping(database), healing=Healing(database))
    return Contents(stores=foundation.stores, markers=markers)
