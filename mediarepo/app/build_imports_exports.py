"""Builds imports, exports and read-through sources."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mediarepo.app.build_services import build_sweeps
from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.config.homeservers import ImportConfig
from mediarepo.db.audit import AuditLog
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.exports import ExportTable
from mediarepo.db.import_commits import ImportCommits, ImportThumbnails
from mediarepo.db.import_ledger import ImportLedger, ImportRuns
from mediarepo.db.import_verification import ImportedContentTable
from mediarepo.db.publishing import PublishTable
from mediarepo.db.sweep import MissingObjects, SweepTable, UploadIntents
from mediarepo.db.unverified_hashes import UnverifiedHashTable
from mediarepo.exporters.destination import BucketPlace, BytesPlace, ExportError, FolderPlace
from mediarepo.exporters.files.archive import Archive, FolderArchive, TarArchive
from mediarepo.exporters.matrix_media_repo import MatrixMediaRepoRowWriter
from mediarepo.exporters.synapse.database import open_for_writing
from mediarepo.exporters.synapse.rows import DatabaseRowWriter, SqlFileWriter
from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.matrix_media_repo.source import (
    BucketDatastore,
    FolderDatastore,
    MatrixMediaRepoConfig,
    load_matrix_media_repo_config,
)
from mediarepo.importers.open_source import OpenSource, open_source
from mediarepo.importers.source import Source
from mediarepo.importers.synapse.config import BucketProvider, SynapseConfig, load_synapse_config
from mediarepo.model.import_ledger import ImportSource
from mediarepo.model.import_source import ReadThroughSource
from mediarepo.model.tasks import Lease
from mediarepo.services.exports.content_transfer import Contents
from mediarepo.services.exports.files import FilesExport
from mediarepo.services.exports.matrix_media_repo import Datastore, MatrixMediaRepoExport
from mediarepo.services.exports.synapse import SynapseExport
from mediarepo.services.imports.decision import DestinationStores, ImportPolicy
from mediarepo.services.imports.ownership import OwnershipTransfer
from mediarepo.services.imports.pipeline import Progress
from mediarepo.services.imports.read_through import ReadThrough
from mediarepo.services.imports.run import ImportRunner, ImportRunOptions
from mediarepo.services.imports.verification import Verifier
from mediarepo.services.stores import BucketMarkers
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.services.uploads import LargeUploads

_LEASE_MS = 15_000
_HEARTBEATS_PER_GRACE = 20


def build_importer(foundation: Foundation, memory: MemoryBudget | None = None) -> ImportRunner:
    """Build an import runner, with its own memory budget unless one is given."""
    settings, database, stores = foundation.settings, foundation.database, foundation.stores
    upload_intents = UploadIntents(database)
    own_server_names = frozenset(homeserver.server_name for homeserver in settings.homeservers)
    return ImportRunner(
        config=settings.uploads,
        stores=stores,
        targets=DestinationStores(stores=settings.stores, store_for=settings.store_for),
        runs=ImportRuns(database),
        ledger=ImportLedger(database),
        commits=ImportCommits(database, own_server_names),
        thumbnails=ImportThumbnails(database),
        upload_intents=upload_intents,
        lease_holder=foundation.lease_holder(_LEASE_MS),
        large=LargeUploads(
            publishing=PublishTable(database, settings.sweep.grace_ms),
            upload_intents=upload_intents,
            stores=stores,
            now_ms=now_ms,
            heartbeat_ms=settings.sweep.grace_ms // _HEARTBEATS_PER_GRACE,
            in_use=foundation.in_use,
        ),
        outbox=build_sweeps(foundation).outbox,
        deletion_table=DeletionTable(database),
        sizes=settings.thumbnails.specs,
        own_server_names=own_server_names,
        now_ms=now_ms,
        memory=memory,
    )


def policy_of(config: ImportConfig, opened: OpenSource) -> ImportPolicy:
    """Return the import policy of a configured source."""
    return ImportPolicy(
        mode=config.mode,
        remote=config.remote,
        thumbnails=config.thumbnails,
        url_previews=config.url_previews,
        server_names=tuple(sorted(opened.server_names)),
    )


async def open_read_through(
    stack: AsyncExitStack, foundation: Foundation, memory: MemoryBudget
) -> ReadThroughSource | None:
    """Open the sources with read-through enabled; None when there are none."""
    configured = {name: one for name, one in foundation.settings.imports.items() if one.read_through}
    if not configured:
        return None
    read_through_requests = foundation.metrics.read_through_requests
    reading = ReadThrough(
        build_importer(foundation, memory), on_outcome=lambda outcome: read_through_requests.labels(outcome).inc()
    )
    for name, config in configured.items():
        opened = open_source(name, config)
        await stack.enter_async_context(opened.source)
        reading.add(opened, policy_of(config, opened), config.kind)
    await stack.enter_async_context(reading)
    in_use = foundation.in_use
    in_use.show("read_through_flights", lambda: reading.flights.in_use)
    in_use.show("read_through_waiting", lambda: reading.waiters.in_use + reading.comparing.waiting)
    in_use.show("read_through_places", lambda: reading.places.in_use + reading.comparing.in_use)
    return reading


def build_verifier(foundation: Foundation, source: Source, *, jobs: int) -> Verifier:
    """Build the verifier of imported content."""
    database = foundation.database
    return Verifier(
        contents=ImportedContentTable(database),
        hashing=UnverifiedHashTable(database),
        stores=foundation.stores,
        source=source,
        part_bytes=foundation.settings.uploads.part_bytes,
        jobs=jobs,
    )


def build_audit(foundation: Foundation) -> AuditLog:
    """Build the audit log."""
    return AuditLog(foundation.database)


def build_undo(foundation: Foundation) -> ImportedContentTable:
    """Build the table that undoes imports."""
    return ImportedContentTable(foundation.database)


def build_ownership_transfer(
    foundation: Foundation,
    import_runner: ImportRunner,
    source: Source,
    known: ImportSource,
    lease: Lease,
    options: ImportRunOptions,
    on_owned: Callable[[int], None],
) -> OwnershipTransfer:
    """Build the service that takes ownership of adopted objects."""
    working = import_runner.working(source, known, 0, lease, options, Progress())
    return OwnershipTransfer(
        contents=ImportedContentTable(foundation.database),
        targets=import_runner.targets,
        source=source,
        item_transfer=replace(working.item_transfer, joins_claimed=False),
        jobs=options.jobs,
        on_owned=on_owned,
    )


_STDOUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class SynapseTarget:
    """A Synapse to export to: bytes go into its folder or bucket, rows into its database or the SQL file `sql`."""

    config: SynapseConfig
    into_bucket: bool = False
    sql: Path | None = None


def read_synapse_config(paths: list[Path]) -> SynapseConfig:
    """Read homeserver.yaml. Raises ExportError when it cannot be used."""
    try:
        return load_synapse_config(paths)
    except SourceConfigError as exc:
        raise ExportError(str(exc)) from exc


@asynccontextmanager
async def open_synapse_export(foundation: Foundation, target: SynapseTarget) -> AsyncIterator[SynapseExport]:
    """Open a Synapse's database and folder, or the bucket and SQL file given instead."""
    config = target.config
    recording: DatabaseRowWriter | SqlFileWriter
    if target.sql is not None:
        recording = SqlFileWriter(target.sql)
    else:
        recording = DatabaseRowWriter(open_for_writing(config.database), config.server_name)
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
    """A matrix-media-repo to export to; `datastore` takes all content, instead of the configured datastores."""

    config: MatrixMediaRepoConfig
    datastore: str | None = None


def read_matrix_media_repo_config(path: Path, base: Path | None) -> MatrixMediaRepoConfig:
    """Read its configuration file or folder. Raises ExportError when it cannot be used."""
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
    recording = MatrixMediaRepoRowWriter(open_for_writing(config.database), config.server_names)
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
        words = "matrix-media-repo's relative paths start at its working folder: use --base"
        raise ExportError(f"the folder {datastore.folder} of {datastore.datastore_id} is not there; {words}")
    return FolderPlace(datastore.folder)


def _archive_of(output: Path) -> Archive:
    if output != _STDOUT and output.suffix != ".tar":
        return FolderArchive(output)
    path = None if output == _STDOUT else output
    return TarArchive(path, output=sys.stdout.buffer, now_s=now_ms() // 1000)


@asynccontextmanager
async def open_files_export(foundation: Foundation, output: Path) -> AsyncIterator[FilesExport]:
    """Open a folder, or a tar file when the name ends so; "-" is standard output."""
    async with _archive_of(output) as archive:
        contents = _contents_of(foundation)
        yield FilesExport(table=ExportTable(foundation.database), contents=contents, archive=archive)


def _contents_of(foundation: Foundation) -> Contents:
    database = foundation.database
    markers = BucketMarkers(sweep_table=SweepTable(database), missing_objects=MissingObjects(database))
    return Contents(stores=foundation.stores, markers=markers)
