"""What imports and their reports are made of, joined by hand."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from mediarepo.app.foundation import Foundation, now_ms
from mediarepo.app.joining import join_sweeps
from mediarepo.config.imports import ImportConfig
from mediarepo.db.deleting import Deleting
from mediarepo.db.hashing import HashingTable
from mediarepo.db.import_commits import ImportCommits
from mediarepo.db.import_ledger import ImportLedger
from mediarepo.db.import_runs import ImportRuns
from mediarepo.db.import_thumbnails import ImportThumbnails
from mediarepo.db.import_verifying import ImportedContents
from mediarepo.db.leases import Leases
from mediarepo.db.publishing import Publishing
from mediarepo.db.sweeping import Intents
from mediarepo.importers.opening import open_source
from mediarepo.importers.source import Source
from mediarepo.model.import_items import ImportSource
from mediarepo.model.leases import Lease
from mediarepo.services.downloads import LookBack
from mediarepo.services.holding import Holding
from mediarepo.services.imports.judging import Policy
from mediarepo.services.imports.owning import Owning
from mediarepo.services.imports.progress import Progress
from mediarepo.services.imports.read_through import ReadThrough
from mediarepo.services.imports.runs import Importing, Options
from mediarepo.services.imports.targets import Targets
from mediarepo.services.imports.verifying import Verifying
from mediarepo.services.large_uploads import LargeUploads

_LEASE_MS = 15_000
_HEARTBEATS_PER_GRACE = 20


def join_importing(foundation: Foundation) -> Importing:
    """Join what imports."""
    settings, database, stores = foundation.settings, foundation.database, foundation.stores
    intents = Intents(database)
    own_server_names = frozenset(homeserver.server_name for homeserver in settings.homeservers)
    return Importing(
        config=settings.uploads,
        stores=stores,
        targets=Targets(stores=settings.stores, store_for=settings.store_for),
        runs=ImportRuns(database),
        ledger=ImportLedger(database),
        commits=ImportCommits(database, own_server_names),
        thumbnails=ImportThumbnails(database),
        intents=intents,
        holding=Holding(leases=Leases(database), duration_ms=_LEASE_MS),
        large=LargeUploads(
            publishing=Publishing(database, settings.sweep.grace_ms),
            intents=intents,
            stores=stores,
            now_ms=now_ms,
            heartbeat_ms=settings.sweep.grace_ms // _HEARTBEATS_PER_GRACE,
        ),
        outbox=join_sweeps(foundation).outbox,
        deleting=Deleting(database),
        sizes=settings.thumbnails.specs,
        own_server_names=own_server_names,
        now_ms=now_ms,
    )


def policy_of(config: ImportConfig) -> Policy:
    """Say what is wanted of a source, as it is configured."""
    return Policy(
        mode=config.mode, remote=config.remote, thumbnails=config.thumbnails, url_previews=config.url_previews
    )


async def open_read_through(stack: AsyncExitStack, foundation: Foundation) -> LookBack | None:
    """Open the sources that are looked through for media which have not moved in yet; None: there are none."""
    configured = {name: one for name, one in foundation.settings.imports.items() if one.read_through}
    if not configured:
        return None
    looked_back = foundation.metrics.looked_back
    reading = ReadThrough(join_importing(foundation), on_outcome=lambda outcome: looked_back.labels(outcome).inc())
    for name, config in configured.items():
        opened = open_source(name, config)
        await stack.enter_async_context(opened.source)
        reading.add(opened, policy_of(config), config.kind)
    await stack.enter_async_context(reading)
    return reading


def join_verifying(foundation: Foundation, source: Source, *, jobs: int) -> Verifying:
    """Join what verifies."""
    database = foundation.database
    return Verifying(
        contents=ImportedContents(database),
        hashing=HashingTable(database),
        stores=foundation.stores,
        source=source,
        part_bytes=foundation.settings.uploads.part_bytes,
        jobs=jobs,
    )


def join_undoing(foundation: Foundation) -> ImportedContents:
    """Join what takes imports back."""
    return ImportedContents(foundation.database)


def join_owning(
    foundation: Foundation,
    importing: Importing,
    source: Source,
    known: ImportSource,
    lease: Lease,
    options: Options,
    on_owned: Callable[[int], None],
) -> Owning:
    """Join what makes adopted objects our own."""
    working = importing.working(source, known, 0, lease, options, Progress())
    return Owning(
        contents=ImportedContents(foundation.database),
        targets=importing.targets,
        source=source,
        carrier=replace(working.carrier, joins_claimed=False),
        jobs=options.jobs,
        on_owned=on_owned,
    )
