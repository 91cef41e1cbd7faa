"""The import pipeline: decides in batches, transfers in parallel, commits results; and its progress."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from mediarepo.db.database import LeaseLostError
from mediarepo.db.import_commits import ImportCommits
from mediarepo.db.import_ledger import ImportLedger
from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.importers.errors import SourceError
from mediarepo.importers.source import Source
from mediarepo.model.import_ledger import ImportReason, ItemState, LedgerEntry, LedgerState, ThumbnailEnd
from mediarepo.model.import_source import SourceItem, SourceKey, SourceMedia
from mediarepo.model.tasks import Lease, Queue, storable_text
from mediarepo.services.imports.decision import ImportDecider, TransferItem, UnchangedItem, Verdict
from mediarepo.services.imports.throttle import Throttle
from mediarepo.services.imports.transfer import ItemTransfer


@dataclass(slots=True)
class Progress:
    """Figures of one run; `rows` were read, of about `expected_rows`; bytes are those transferred by us."""

    expected_rows: int = 0
    expected_bytes: int = 0
    rows: int = 0
    seen_bytes: int = 0
    moved_bytes: int = 0
    adopted_bytes: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    unchanged: int = 0
    active: int = 0
    lists: int = 0
    states: Counter[ItemState] = field(default_factory=Counter)
    thumbnails: Counter[ThumbnailEnd] = field(default_factory=Counter)
    clock: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """How many rows are finished in this run."""
        return self.states.total()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return max(self.clock() - self.started, 0.001)

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds to the end; None while unknown."""
        if not self.done or self.expected_rows <= 0:
            return None
        return max(0.0, (self.expected_rows - self.done) * self.elapsed_s / self.done)

    def figures(self) -> dict[str, object]:
        """Return the figures that are stored."""
        return {
            "rows": self.rows,
            "bytes": self.seen_bytes,
            "moved_bytes": self.moved_bytes,
            "adopted_bytes": self.adopted_bytes,
            "unchanged": self.unchanged,
            "orphans": self.orphans,
            "orphan_bytes": self.orphan_bytes,
            "lists": self.lists,
            "thumbnails": {str(end): self.thumbnails[end] for end in ThumbnailEnd if self.thumbnails[end]},
            **{str(state): self.states[state] for state in ItemState},
        }

    def line(self) -> dict[str, object]:
        """Return a progress line as fields."""
        eta_s = self.eta_s
        return {
            **self.figures(),
            "expected_rows": self.expected_rows,
            "expected_bytes": self.expected_bytes,
            "in_flight": self.active,
            "rows_per_s": round(self.done / self.elapsed_s, 1),
            "bytes_per_s": round(self.moved_bytes / self.elapsed_s),
            "elapsed_s": round(self.elapsed_s, 1),
            "eta_s": None if eta_s is None else round(eta_s),
        }


log = structlog.get_logger(__name__)

BATCH = 300
_COMMIT_EVERY_S = 0.5
_ATTEMPTS = 5
_PAUSE_S = 0.5
_MAX_FAILURES_IN_A_ROW = 30


class StorageOutageError(UnavailableError):
    """Too many objects in a row could not be stored; the run stops."""


@dataclass(slots=True, kw_only=True)
class ImportPipeline:
    """One run's workers; rows given to `take` are in the ledger once `entered` is left."""

    source: Source
    source_id: int
    run_id: int
    lease: Lease | None
    judge: ImportDecider
    item_transfer: ItemTransfer
    ledger: ImportLedger
    commits: ImportCommits
    pace: Throttle
    progress: Progress
    jobs: int
    _todo: "asyncio.Queue[TransferItem | None]" = field(init=False)
    _ends: "asyncio.Queue[LedgerEntry | None]" = field(init=False)
    _failures: int = 0
    _committed: int = 0
    _next_stock: int = 2 * BATCH

    def __post_init__(self) -> None:
        self._todo = asyncio.Queue(maxsize=2 * self.jobs)
        self._ends = asyncio.Queue(maxsize=4 * BATCH)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Run the workers; when left without an error, everything taken has been committed."""
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(self._commit_all())
            workers = [group.create_task(self._carry_all()) for _ in range(self.jobs)]
            yield
            for _ in workers:
                await self._todo.put(None)
            await asyncio.gather(*workers)
            await self._ends.put(None)
            await committing

    async def take(self, batch: Sequence[SourceItem]) -> None:
        """Decide about rows, and queue their work; waits while the queue is full."""
        located = list({one.media.key: one for one in batch}.values())
        known = await self.ledger.known(self.source_id, [one.media.key for one in located])
        seen: list[SourceKey] = []
        for one in located:
            self.progress.seen_bytes += one.media.size_bytes or 0
            verdict = self.judge.judge(one, known.get(one.media.key, LedgerState()))
            await self._dispatch(verdict, seen)
        await self.ledger.mark_seen(self.source_id, self.run_id, seen)

    async def _dispatch(self, verdict: Verdict, seen: list[SourceKey]) -> None:
        match verdict:
            case UnchangedItem():
                seen.append(verdict.media.key)
                self.progress.unchanged += 1
                self.progress.states[verdict.state] += 1
            case TransferItem():
                await self._todo.put(verdict)
            case LedgerEntry():
                await self._ends.put(verdict)

    async def _carry_all(self) -> None:
        while (item := await self._todo.get()) is not None:
            async with self.pace.one():
                self.progress.active = self.pace.active
                entry = await self.carry(item)
            if entry is None:
                self.progress.rows -= 1
            else:
                await self._ends.put(entry)

    async def carry(self, item: TransferItem) -> LedgerEntry | None:
        """Transfer one row's bytes; None when the source no longer has the row. Retries while S3 asks to slow down."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                entry = await self.item_transfer.carry(item)
            except SourceError as exc:
                return LedgerEntry(
                    media=item.media, state=ItemState.FAILED, reason=ImportReason.UNREADABLE, words=str(exc)
                )
            except MatrixError as exc:
                self.pace.slow_down()
                if attempt == _ATTEMPTS:
                    return self._failed(item, exc)
                await asyncio.sleep(_PAUSE_S * 2**attempt * (0.5 + random.random()))  # noqa: S311 - scatters retries
            else:
                self._failures = 0
                self.pace.went_well()
                return await self._look_again(entry)
        return None

    def _failed(self, item: TransferItem, exc: MatrixError) -> LedgerEntry:
        self._failures += 1
        if self._failures >= _MAX_FAILURES_IN_A_ROW:
            words = f"{self._failures} in a row could not be stored, the last because: {exc}"
            raise StorageOutageError(words, retry_after_s=60)
        return LedgerEntry(media=item.media, state=ItemState.FAILED, reason=ImportReason.STORAGE, words=str(exc))

    async def _look_again(self, entry: LedgerEntry) -> LedgerEntry | None:
        """Tell what vanished because it was removed at the source from what should be there."""
        if entry.reason is not ImportReason.VANISHED:
            return entry
        now = await self.source.lookup(entry.media.server_name, entry.media.media_id)
        return None if now is None else entry

    async def _commit_all(self) -> None:
        """Commit ends as they come: many at once, but none later than half a second after it came."""
        ended = False
        while not ended:
            entries: dict[SourceKey, LedgerEntry] = {}
            try:
                async with asyncio.timeout(None) as waiting:
                    while len(entries) < BATCH:
                        entry = await self._ends.get()
                        if entry is None:
                            ended = True
                            break
                        if not entries:
                            waiting.reschedule(asyncio.get_running_loop().time() + _COMMIT_EVERY_S)
                        entries[entry.media.key] = entry
            except TimeoutError:
                pass
            await self._commit(list(entries.values()))

    async def _commit(self, entries: list[LedgerEntry]) -> None:
        for _ in range(_ATTEMPTS):
            if not entries:
                return
            entries, again = await self._commit_some(entries)
            await self._take_stock(len(entries) - len(again))
            self.item_transfer.forget([entry.content for entry in entries if entry.content is not None])
            kept = {id(entry) for entry in again}
            for entry in entries:
                if id(entry) not in kept:
                    self._count(entry)
            entries = await self._anew(again)
        log.error("import_rows_not_committed", keys=[entry.media.key for entry in entries])
        words = "its object was garbage collected repeatedly before it was committed"
        given_up = [
            LedgerEntry(media=entry.media, state=ItemState.FAILED, reason=ImportReason.STORAGE, words=words)
            for entry in entries
        ]
        await self.commits.commit(self.source_id, self.run_id, given_up, self.lease)
        self.progress.states[ItemState.FAILED] += len(given_up)

    async def _commit_some(self, entries: list[LedgerEntry]) -> tuple[list[LedgerEntry], list[LedgerEntry]]:
        """Commit rows; gives them, those that Postgres refuses as failed ones, and which are to be looked at anew.

        One row that cannot be written must not keep the others of its batch, or of the run, from being committed.
        """
        written: list[LedgerEntry] = []
        again: list[LedgerEntry] = []
        waiting = [entries]
        while waiting:
            batch = waiting.pop()
            try:
                again += await self.commits.commit(self.source_id, self.run_id, batch, self.lease)
                written += batch
            except Exception as exc:  # halved until the failing row is alone, and recorded
                if isinstance(exc, LeaseLostError) or await self.commits.is_away():
                    raise
                if len(batch) > 1:
                    waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                elif batch[0].reason is ImportReason.REFUSED:
                    log.exception("import_row_not_saved", key=batch[0].media.key)
                    written += batch
                else:
                    waiting.append([_refused(batch[0], exc)])
        return written, again

    async def _take_stock(self, count: int) -> None:
        """Have statistics renewed whenever there is ten times as much as before; empty tables are planned for badly."""
        self._committed += count
        if self._committed >= self._next_stock:
            self._next_stock *= 10
            await self.ledger.take_stock()

    def _count(self, entry: LedgerEntry) -> None:
        self.progress.states[entry.state] += 1
        if entry.content is not None and entry.content.borrowed:
            self.progress.adopted_bytes += entry.content.size_bytes

    async def _anew(self, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
        """Look at rows once more whose content was lost to a sweep, or that somebody else committed meanwhile."""
        found = []
        known = await self.ledger.known(self.source_id, [entry.media.key for entry in entries]) if entries else {}
        for entry in entries:
            resolution = await self.source.locate(entry.media)
            verdict = self.judge.judge(SourceItem(entry.media, resolution), known.get(entry.media.key, LedgerState()))
            if isinstance(verdict, TransferItem):
                ended = await self.carry(verdict)
                found += [] if ended is None else [ended]
            elif isinstance(verdict, LedgerEntry):
                found.append(verdict)
            else:
                await self.ledger.mark_seen(self.source_id, self.run_id, [verdict.media.key])
                self.progress.states[verdict.state] += 1
        return found


def _refused(entry: LedgerEntry, exc: Exception) -> LedgerEntry:
    """Say of a row that it could not be written; what was made for it is removed as all that nobody commits."""
    words = f"the row could not be written: {exc}"
    log.error("item_set_aside", queue=Queue.IMPORTS, item="/".join(entry.media.key), reason=words)
    bare = SourceMedia(
        server_name=entry.media.server_name,
        media_id=entry.media.media_id,
        kind=entry.media.kind,
        quarantined_by=entry.media.quarantined_by,
    )
    return LedgerEntry(media=bare, state=ItemState.FAILED, reason=ImportReason.REFUSED, words=storable_text(words, 500))
