"""What a run would do."""

from collections.abc import Sequence
from contextlib import aclosing

from mediarepo.db.import_ledger import ImportLedger
from mediarepo.importers.source import Source
from mediarepo.model.import_ledger import Entry, ImportSource, Known
from mediarepo.model.import_source import Located, Orphan
from mediarepo.services.imports.judging import Carry, Judge, Verdict
from mediarepo.services.imports.progress import Progress
from mediarepo.services.imports.working import BATCH


class Plan:
    """Rows and bytes, by what would become of them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.bytes: dict[str, int] = {}

    def note(self, what: str, size_bytes: int) -> None:
        """Count one."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.bytes[what] = self.bytes.get(what, 0) + size_bytes


async def make_plan(
    source: Source, known: ImportSource, judge: Judge, ledger: ImportLedger, progress: Progress
) -> Plan:
    """Walk through the source and judge every row as a run would; nothing is changed anywhere."""
    plan = Plan()
    batch: list[Located] = []
    async with aclosing(source.located()) as walk:
        async for met in walk:
            progress.lists = source.lists
            if isinstance(met, Orphan) and judge.is_own_copy(met):
                continue
            if isinstance(met, Orphan):
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
    known: ImportSource, batch: Sequence[Located], judge: Judge, ledger: ImportLedger, plan: Plan
) -> None:
    found = await ledger.known(known.source_id, [one.media.key for one in batch])
    for one in batch:
        verdict = judge.judge(one, found.get(one.media.key, Known()))
        size_bytes = verdict.found.size_bytes if isinstance(verdict, Carry) else one.media.size_bytes
        plan.note(_what(verdict), size_bytes or 0)


def _what(verdict: Verdict) -> str:
    if isinstance(verdict, Carry):
        return str(verdict.route.mode)
    if isinstance(verdict, Entry):
        return str(verdict.reason or verdict.mode or "changed")
    return "unchanged"
