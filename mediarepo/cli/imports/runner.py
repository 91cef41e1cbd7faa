"""`mediarepo import NAME preflight | plan | run | watch | verify | finalize | undo`."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

import typer

from mediarepo.app.build_imports_exports import build_importer, build_ownership_transfer, build_undo, build_verifier
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.amounts import UsageError
from mediarepo.cli.imports.options import (
    CLEAN,
    FAILED,
    INCOMPLETE,
    STOPPED,
    UNUSABLE,
    Imports,
    import_action,
    note_action,
    say,
)
from mediarepo.cli.imports.reports import account_of, source_of
from mediarepo.cli.output import check_confirmed, human_bytes, print_json, print_table, progress_line
from mediarepo.config.settings import Settings
from mediarepo.db.database import LeaseLostError
from mediarepo.importers.errors import SourceError
from mediarepo.model.import_ledger import ItemState
from mediarepo.model.import_source import SAMPLES, MediaKind, PreflightReport
from mediarepo.services.imports.ownership import PruneRefusedError
from mediarepo.services.imports.pipeline import Progress, StorageOutageError
from mediarepo.services.imports.run import ImportBusyError, dry_run
from mediarepo.services.imports.verification import VerifyLevel, VerifyReport, VerifyScope, WrongBucketError
from mediarepo.storage.errors import StorageError

_EVERY_S = 30
_MINUTE_S, _HOUR_S = 60, 3600


@contextlib.asynccontextmanager
async def progress_display(command: str, progress: Progress, *, every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Show a progress line until the block ends."""
    if sys.stderr.isatty():
        async with progress_line(lambda: progress_text(progress)):
            yield
        return

    async def write() -> None:
        while True:
            await asyncio.sleep(every_s)
            print(json.dumps({"import": command, **progress.line()}), file=sys.stderr, flush=True)  # noqa: T201 - for machines

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()


def progress_text(progress: Progress) -> str:
    """Format progress as one line of text."""
    line = progress.line()
    total = f" of {progress.expected_rows}" if progress.expected_rows else ""
    size = f"{human_bytes(progress.seen_bytes)}"
    if progress.expected_bytes:
        size += f" of {human_bytes(progress.expected_bytes)}"
    parts = [
        f"{progress.done}{total} items, {size}",
        f"{line['rows_per_s']} items/s, {human_bytes(int(progress.moved_bytes / progress.elapsed_s))}/s moved",
        f"{progress.active} in flight",
    ]
    if progress.eta_s is not None:
        parts.append(f"about {human_duration(progress.eta_s)} to go")
    amiss = sum(count for state, count in progress.states.items() if state in {"missing", "mismatched", "failed"})
    if amiss:
        parts.append(f"{amiss} amiss")
    return ", ".join(parts)


def human_duration(seconds: float) -> str:
    """Format a duration: 12 s, 3 min or 1.5 h."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"


_ENDING = (SourceError, ImportBusyError, StorageOutageError, PruneRefusedError, LeaseLostError)


async def preflight(imports: Imports, *, as_json: bool) -> int:
    """Check the source and our own side, and print what prevents an import."""
    findings = await print_preflight(imports)
    if as_json:
        print_json({**asdict(findings), "usable": findings.usable})
    else:
        _tell(findings)
    return CLEAN if findings.usable else UNUSABLE


async def print_preflight(imports: Imports, *, tries: int = SAMPLES) -> PreflightReport:
    """Check whether an import can work, looking for `tries` originals; prints the result."""
    findings = await imports.opened.source.preflight(tries=tries)
    addresses, policy = imports.opened.source.bucket_addresses, imports.options.policy
    findings.problems += imports.import_runner.targets.problems(addresses, policy.mode)
    findings.facts += imports.import_runner.targets.facts(addresses, policy.mode)
    strangers = imports.opened.server_names - imports.import_runner.own_server_names
    findings.problems += [
        f"{name} is not configured under homeservers: its media could never be requested" for name in strangers
    ]
    for store in imports.foundation.stores.by_name.values():
        try:
            await store.check()
        except StorageError as exc:
            findings.problems.append(str(exc))
    return findings


def _tell(findings: PreflightReport) -> None:
    for words in findings.facts:
        typer.echo(f"fact: {words}")
    if findings.counts:
        sizes = [(name, count, human_bytes(findings.bytes.get(name, 0))) for name, count in findings.counts.items()]
        print_table(["of", "rows", "bytes"], sizes)
    for words in findings.warnings:
        typer.echo(f"warning: {words}")
    for words in findings.problems:
        typer.echo(f"problem: {words}")
    typer.echo("ready to import" if findings.usable else f"{len(findings.problems)} problems prevent the import")


async def plan(imports: Imports, *, as_json: bool) -> int:
    """Print what a run would do."""
    progress = _expected(await imports.opened.source.preflight(tries=0))
    judge = imports.import_runner.judge(imports.opened.source, imports.options.policy)
    async with progress_display("plan", progress):
        found = await dry_run(imports.opened.source, imports.known, judge, imports.import_runner.ledger, progress)
    if as_json:
        print_json({"rows": progress.rows, "lists": progress.lists, "counts": found.counts, "bytes": found.bytes})
        return CLEAN
    print_table(
        ["what would be done", "rows", "bytes"],
        [(what, count, human_bytes(found.bytes[what])) for what, count in sorted(found.counts.items())],
    )
    typer.echo(f"{progress.rows} rows; nothing was changed")
    return CLEAN


def _expected(findings: PreflightReport) -> Progress:
    kinds = [str(kind) for kind in MediaKind]
    return Progress(
        expected_rows=sum(findings.counts.get(kind, 0) for kind in kinds),
        expected_bytes=sum(findings.bytes.get(kind, 0) for kind in kinds),
    )


async def run_once(imports: Imports, *, yes: bool, as_json: bool) -> int:
    """Run the import once, after a confirmation if it may delete; returns the exit status."""
    findings = await print_preflight(imports, tries=0)
    if not findings.usable:
        _tell(findings)
        return UNUSABLE
    if imports.options.prune:
        check_confirmed(
            [f"import {imports.known.name}: media that were imported, and are gone from the source, are deleted here"],
            yes=yes,
        )
    return await _run(imports, _expected(findings), as_json=as_json)


async def _run(imports: Imports, progress: Progress, *, as_json: bool) -> int:
    await note_action(imports, "run_import")
    try:
        async with progress_display("run", progress):
            run_id = await imports.import_runner.run(
                imports.opened.source,
                imports.known,
                imports.options,
                progress,
                import_action(imports.settings, "prune_import"),
            )
    except _ENDING as exc:
        say(exc)
        typer.echo("committed media are kept; run again to resume", err=True)
        return STOPPED
    if as_json:
        print_json({"run": run_id, **progress.line(), "notes": imports.opened.source.notes})
    else:
        _summarise(run_id, progress)
        for note in imports.opened.source.notes:
            typer.echo(f"note: {note}")
    return status_of(progress)


def _summarise(run_id: int, progress: Progress) -> None:
    ends = " + ".join(f"{progress.states[state]} {state}" for state in ItemState)
    typer.echo(f"run {run_id}: {progress.rows} rows = {ends}")
    typer.echo(
        f"{progress.unchanged} as before; {human_bytes(progress.moved_bytes)} moved,"
        f" {human_bytes(progress.adopted_bytes)} adopted; {progress.orphans} orphans"
        f" ({human_bytes(progress.orphan_bytes)}); {progress.lists} LIST requests; {human_duration(progress.elapsed_s)}"
    )
    if progress.thumbnails:
        ended = (f"{count} {end.replace('_', ' ')}" for end, count in progress.thumbnails.most_common())
        typer.echo(f"thumbnails: {', '.join(ended)}")


def status_of(progress: Progress) -> int:
    """Return a run's exit status: the worst result of any row."""
    if progress.states[ItemState.FAILED]:
        return FAILED
    return INCOMPLETE if progress.states[ItemState.MISSING] or progress.states[ItemState.MISMATCHED] else CLEAN


async def watch(imports: Imports, stop: asyncio.Event, *, interval_s: float, as_json: bool) -> int:
    """Run the import repeatedly until told to stop; a failed run is followed by another."""
    status = await run_once(imports, yes=False, as_json=as_json)
    while not stop.is_set() and status != UNUSABLE:
        try:
            async with asyncio.timeout(max(0.1, interval_s)):
                await stop.wait()
        except TimeoutError:
            status = await run_once(imports, yes=False, as_json=as_json)
    return status


async def verify(imports: Imports, *, level: str, as_json: bool) -> int:
    """Compare committed media with the bucket, the source's files or the hashes.

    Raises UsageError when `level` is unknown.
    """
    try:
        verify_scope = VerifyScope.parse(level)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    findings = VerifyReport()
    verifying = build_verifier(imports.foundation, imports.opened.source, jobs=imports.options.jobs)
    async with progress_line(lambda: f"{findings.checked} objects checked, {len(findings.wrong)} wrong"):
        try:
            await verifying.verify(imports.known, verify_scope, findings)
        except (SourceError, WrongBucketError) as exc:
            say(exc)
            return STOPPED
    _print_verification(findings, verify_scope, as_json=as_json)
    return INCOMPLETE if findings.wrong else CLEAN


def _print_verification(findings: VerifyReport, verify_scope: VerifyScope, *, as_json: bool) -> None:
    if as_json:
        wrong = [{"mxc": mxc, "why": why} for mxc, why in findings.wrong]
        figures = {"checked": findings.checked, "only_by_size": findings.shallow, "hashes_learnt": findings.learnt}
        print_json({"level": verify_scope.level, **figures, "wrong": wrong})
        return
    for mxc, why in findings.wrong:
        typer.echo(f"wrong: {mxc}: {why}")
    typer.echo(f"{findings.checked} objects checked by {verify_scope.level}: {len(findings.wrong)} wrong")
    if findings.shallow:
        typer.echo(f"{findings.shallow} of them could only be compared by size")
    if findings.learnt:
        typer.echo(f"{findings.learnt} hashes were computed")
    if verify_scope.level is VerifyLevel.SAMPLE and findings.checked and not findings.wrong:
        typer.echo(f"with 95 % confidence, at most {findings.bound:.2%} of all are wrong")


async def finalize(imports: Imports, *, take_ownership: bool) -> int:
    """Complete an import: refuses while rows have failed; the source is not looked up any more afterwards."""
    account = await account_of(imports.import_runner, imports.known)
    if account.rows is None:
        say(UsageError("no run is complete yet: run the import once more"))
        return STOPPED
    if account.count(ItemState.FAILED):
        say(UsageError(f"{account.count(ItemState.FAILED)} media failed: see the report, and run again"))
        return FAILED
    if take_ownership:
        owned = await _take_ownership(imports)
        typer.echo(f"{owned[0]} adopted objects were copied into our own stores ({human_bytes(owned[1])})")
        if owned[2]:
            say(UsageError(f"{owned[2]} objects are still adopted: see the log, fix the cause, and run this again"))
            return FAILED
    await note_action(imports, "finalize_import")
    await imports.import_runner.runs.finalize(imports.known.source_id)
    typer.echo(f"{imports.known.name} is finalized: read-through has ended")
    return CLEAN


async def _take_ownership(imports: Imports) -> tuple[int, int, int]:
    owned = [0, 0]

    def on_owned(size_bytes: int) -> None:
        owned[0] += 1
        owned[1] += size_bytes

    async with (
        imports.import_runner.lock_source(imports.known) as lease,
        progress_line(lambda: f"{owned[0]} objects, {human_bytes(owned[1])} taken over"),
    ):
        owning = build_ownership_transfer(
            imports.foundation,
            imports.import_runner,
            imports.opened.source,
            imports.known,
            lease,
            imports.options,
            on_owned,
        )
        await owning.own_all(imports.known)
    return owned[0], owned[1], owning.failed


async def undo(settings: Settings, name: str, which: str, *, yes: bool) -> None:
    """Undo one run, or all runs.

    Raises typer.Exit when `which` is no run, or another import of the source is running.
    """
    if which != "all" and not which.isdecimal():
        typer.echo(f"mediarepo: {which!r} is neither the number of a run nor all", err=True)
        raise typer.Exit(STOPPED)
    async with open_foundation(settings) as foundation:
        import_runner = build_importer(foundation)
        known = await source_of(import_runner, name)
        try:
            async with import_runner.lock_source(known):
                contents, act = build_undo(foundation), import_action(settings, "undo_import")
                count = await contents.count_undoable(known.source_id, None if which == "all" else int(which))
                check_confirmed(_planned_undo(name, which, count), yes=yes)
                removed = await contents.undo(known.source_id, name, None if which == "all" else int(which), act)
        except ImportBusyError as exc:
            say(exc)
            raise typer.Exit(STOPPED) from exc
        await import_runner.outbox.drain()
    typer.echo(f"{removed} media were deleted")


def _planned_undo(name: str, which: str, count: int) -> list[str]:
    what = "everything that was imported" if which == "all" else f"what run {which} imported"
    plan = [f"import {name}: {what} is undone: {count} media and their new objects are deleted; adopted objects stay"]
    if which == "all":
        plan.append(f"import {name}: its ledger and the imported quarantines are deleted too")
    return plan
