"""One run of an import over all rows of a source, and its dry run."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace

import structlog

from mediarepo.config.media import UploadsConfig
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.import_commits import ImportCommits, ImportThumbnails
from mediarepo.db.import_ledger import ImportLedger, ImportRuns
from mediarepo.db.sweep import UploadIntents
from mediarepo.errors import MatrixError
from mediarepo.importers.errors import SourceError
from mediarepo.importers.source import Source
from mediarepo.model.import_ledger import ImportSource, LedgerEntry, LedgerState, LedgerUnclaimedBytes
from mediarepo.model.import_source import MediaKind, ResolutionState, SourceItem, UnclaimedBytes
from mediarepo.model.marks import AdminAction
from mediarepo.model.media import ThumbnailSpec
from mediarepo.model.tasks import Lease
from mediarepo.services.deletion import OutboxWorker
from mediarepo.services.imports.decision import (
    DestinationStores,
    ImportDecider,
    ImportPolicy,
    TransferItem,
    Verdict,
    describe_place,
)
from mediarepo.services.imports.ownership import prune
from mediarepo.services.imports.pipeline import BATCH, ImportPipeline, Progress
from mediarepo.services.imports.throttle import KeyPool, Throttle
from mediarepo.services.imports.thumbnails import ThumbnailImport
from mediarepo.services.imports.transfer import ItemTransfer, ServerSideCopy
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.stores import Stores
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.services.uploads import LargeUploads


class DryRun:
    """Rows and bytes, by what would be done with them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.bytes: dict[str, int] = {}

    def note(self, what: str, size_bytes: int) -> None:
        """Count one row."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.bytes[what] = self.bytes.get(what, 0) + size_bytes


async def dry_run(
    source: Source, known: ImportSource, judge: ImportDecider, ledger: ImportLedger, progress: Progress
) -> DryRun:
    """Read the source and decide about every row as a run would; changes nothing."""
    plan = DryRun()
    batch: list[SourceItem] = []
    async with aclosing(source.located()) as walk:
        async for met in walk:
            progress.lists = source.lists
            if isinstance(met, UnclaimedBytes) and judge.is_own_copy(met):
                continue
            if isinstance(met, UnclaimedBytes):
                plan.note("orphan", met.found.size_bytes)
                continue
            batch.append(met)
            progress.rows += 1
            if len(batch) == BATCH:
                await _plan_batch(known, batch, judge, ledger, plan)
                batch = []
    await _plan_batch(known, batch, judge, ledger, plan)
    return plan


async def _plan_batch(
    known: ImportSource, batch: Sequence[SourceItem], judge: ImportDecider, ledger: ImportLedger, plan: DryRun
) -> None:
    found = await ledger.known(known.source_id, [one.media.key for one in batch])
    for one in batch:
        verdict = judge.judge(one, found.get(one.media.key, LedgerState()))
        size_bytes = verdict.found.size_bytes if isinstance(verdict, TransferItem) else one.media.size_bytes
        plan.note(_what(verdict), size_bytes or 0)


def _what(verdict: Verdict) -> str:
    if isinstance(verdict, TransferItem):
        return str(verdict.route.mode)
    if isinstance(verdict, LedgerEntry):
        return str(verdict.reason or verdict.mode or "changed")
    return "unchanged"


log = structlog.get_logger(__name__)

_BEAT_S = 10
_FEW = 10
_MAX_HASHES = 500_000
_PATIENCE, _LOOK_S = 1.5, 2.0
"""For how many leases, and how often, a source that somebody holds is waited for: he may have been killed."""


class ImportBusyError(Exception):
    """Another process imports from the same source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRunOptions:
    """Limits of one run; None: without limit."""

    policy: ImportPolicy
    jobs: int = 32
    bytes_per_s: float | None = None
    requests_per_s: float | None = None
    prune: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRunner:
    """Runs imports of sources into our stores and tables."""

    config: UploadsConfig
    stores: Stores
    targets: DestinationStores
    runs: ImportRuns
    ledger: ImportLedger
    commits: ImportCommits
    thumbnails: ImportThumbnails
    upload_intents: UploadIntents
    lease_holder: LeaseHolder
    large: LargeUploads
    outbox: OutboxWorker
    deletion_table: DeletionTable
    sizes: Sequence[ThumbnailSpec]
    own_server_names: frozenset[str]
    now_ms: Callable[[], int]
    memory: MemoryBudget | None = None
    """What is shared with others in the same process; None: each run has as much as uploads have."""

    @asynccontextmanager
    async def lock_source(self, known: ImportSource) -> AsyncIterator[Lease]:
        """Hold the source's import lock; leftovers of a killed import are removed first, our own at the end.

        Raises ImportBusyError when another process imports from the source.
        """
        loop, holder = asyncio.get_running_loop(), holder_of(known.name)
        until = loop.time() + self.lease_holder.duration_ms / 1000 * _PATIENCE
        while True:
            async with self.lease_holder.acquire(f"import {known.name}") as lease:
                if lease is not None:
                    await self.clear(holder)
                    yield lease
                    await self.clear(holder)
                    return
            if loop.time() > until:
                raise ImportBusyError(f"another process is importing from {known.name} just now")
            log.warning("import_paused", source=known.name, reason="another process imports it, or died a moment ago")
            await asyncio.sleep(_LOOK_S)

    async def clear(self, holder: str) -> None:
        """Delete what a holder made and never committed."""
        if await self.upload_intents.condemn_all(holder):
            await self.outbox.drain()

    async def run(
        self,
        source: Source,
        known: ImportSource,
        options: ImportRunOptions,
        progress: Progress,
        pruning: AdminAction | None = None,
    ) -> int:
        """Import what is new or changed; returns the run's number. The run is complete unless this raises.

        `pruning` is the action under which deletions of media gone from the source are audited.
        """
        async with self.lock_source(known) as lease:
            run_id = await self.runs.begin(known.source_id, "run", asdict(options))
            beating = asyncio.create_task(self._beat(run_id, known, progress))
            try:
                await self._run(source, known, run_id, lease, options, progress)
                if options.prune:
                    await prune(known, self.ledger, self.deletion_table, pruning)
            except BaseException as exc:
                await self.runs.end(run_id, progress.figures(), complete=False, error=str(exc) or type(exc).__name__)
                raise
            finally:
                beating.cancel()
            await self.runs.end(run_id, progress.figures(), complete=True)
        return run_id

    async def _run(
        self,
        source: Source,
        known: ImportSource,
        run_id: int,
        lease: Lease,
        options: ImportRunOptions,
        progress: Progress,
    ) -> None:
        working = self.working(source, known, run_id, lease, options, progress)
        working.item_transfer.hashes = await self.ledger.hashes(_MAX_HASHES)
        try:
            async with working.entered():
                await self._walk(source, known, run_id, working, progress)
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        if options.policy.thumbnails:
            await self._thumbnails(working, options, lease).take_all()
        await working.item_transfer.keys.give_back()
        progress.lists = source.lists
        await self.ledger.forget_orphans_before(known.source_id, run_id)
        await self.ledger.mark_gone(known.source_id, run_id)
        await working.commits.release_blocks(known.source_id)
        await working.commits.list_hidden(known.source_id, known.name)

    def _thumbnails(self, working: ImportPipeline, options: ImportRunOptions, lease: Lease) -> ThumbnailImport:
        return ThumbnailImport(
            source=working.source,
            source_id=working.source_id,
            mode=options.policy.mode,
            sizes=self.sizes,
            targets=self.targets,
            stores=self.stores,
            keys=working.item_transfer.keys,
            table=self.thumbnails,
            pace=working.pace,
            progress=working.progress,
            lease=lease,
        )

    async def _walk(
        self, source: Source, known: ImportSource, run_id: int, working: ImportPipeline, progress: Progress
    ) -> None:
        batch: list[SourceItem] = []
        orphans: list[LedgerUnclaimedBytes] = []
        async with aclosing(source.located()) as walk:
            async for met in walk:
                if isinstance(met, UnclaimedBytes) and working.judge.is_own_copy(met):
                    continue
                if isinstance(met, UnclaimedBytes):
                    orphans.append(LedgerUnclaimedBytes(describe_place(met.found), met.found.size_bytes))
                    progress.orphans += 1
                    progress.orphan_bytes += met.found.size_bytes
                else:
                    batch.append(met)
                    progress.rows += 1
                progress.lists = source.lists
                if len(batch) == BATCH:
                    _check_first(batch, progress)
                    await working.take(batch)
                    batch = []
                if len(orphans) == BATCH:
                    await self.ledger.note_orphans(known.source_id, run_id, orphans)
                    orphans = []
        _check_first(batch, progress)
        await working.take(batch)
        await self.ledger.note_orphans(known.source_id, run_id, orphans)

    def working(
        self,
        source: Source,
        known: ImportSource,
        run_id: int,
        lease: Lease | None,
        options: ImportRunOptions,
        progress: Progress,
        *,
        holder: str | None = None,
    ) -> ImportPipeline:
        """Build the pipeline of one run, or of one read-through."""
        pace = Throttle(options.jobs, bytes_per_s=options.bytes_per_s, requests_per_s=options.requests_per_s)
        return ImportPipeline(
            source=source,
            source_id=known.source_id,
            run_id=run_id,
            lease=lease,
            judge=self.judge(source, options.policy),
            item_transfer=self._carrier(source, known.source_id, holder or holder_of(known.name), pace, progress),
            ledger=self.ledger,
            commits=self.commits.for_homeservers(frozenset(options.policy.server_names)),
            pace=pace,
            progress=progress,
            jobs=options.jobs,
        )

    def _carrier(self, source: Source, source_id: int, holder: str, pace: Throttle, progress: Progress) -> ItemTransfer:
        def on_bytes(count: int) -> None:
            progress.moved_bytes += count

        return ItemTransfer(
            source=source,
            source_id=source_id,
            config=self.config,
            stores=self.stores,
            ledger=self.ledger,
            keys=KeyPool(self.upload_intents, holder, self.now_ms),
            memory=self.memory or MemoryBudget(self.config),
            large=replace(self.large, holder=holder),
            copying=ServerSideCopy(
                stores=self.stores, upload_intents=self.upload_intents, holder=holder, now_ms=self.now_ms
            ),
            pace=pace,
            on_bytes=on_bytes,
        )

    def judge(self, source: Source, policy: ImportPolicy) -> ImportDecider:
        """Build the decider for a source."""
        return ImportDecider(
            policy,
            self.targets,
            buckets=source.bucket_addresses,
            own_server_names=self.own_server_names,
            now_ms=self.now_ms,
        )

    async def _beat(self, run_id: int, known: ImportSource, progress: Progress) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                await self.runs.beat(run_id, progress.figures())
                await self.upload_intents.renew_all(holder_of(known.name))
            except MatrixError as exc:
                log.warning("import_status_not_saved", reason=exc.message)


def _check_first(batch: Sequence[SourceItem], progress: Progress) -> None:
    """Refuse to call everything missing: then it is the folder, or the bucket, that is another one."""
    states = [
        one.resolution.state
        for one in batch
        if one.resolution.state is not ResolutionState.PENDING
        and one.media.kind is not MediaKind.THUMBNAIL
        and not (one.media.block_only or one.media.may_lack_content)
    ]
    if progress.rows == len(batch) and len(states) >= _FEW and set(states) == {ResolutionState.MISSING}:
        raise SourceError(
            f"none of the first {len(states)} originals is there: do the folders or buckets belong to it?"
        )


def holder_of(name: str) -> str:
    """Return the holder of an import's intents."""
    return f"import {name}"
