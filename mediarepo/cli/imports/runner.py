"""`mediarepo import NAME preflight | plan | run | watch`."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

import typer

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
from mediarepo.cli.output import human_bytes, print_json, print_table, progress_line
from mediarepo.db.database import LeaseLostError
from mediarepo.importers.errors import SourceError
from mediarepo.model.import_ledger import ItemState
from mediarepo.model.import_source import SAMPLES, MediaKind, PreflightReport
from mediarepo.services.imports.ownership import PruneRefusedError
from mediarepo.services.imports.pipeline import StorageOutageError
from mediarepo.services.imports.progress import Progress
from mediarepo.services.imports.run import ImportBusyError, dry_run
from mediarepo.storage.errors import StorageError

_EVERY_S = 30
_MINUTE_S, _HOUR_S = 60, 3600


@contextlib.asynccontextmanager
async def shown(command: str, progress: Progress, *, every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Show progress while something goes on."""
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
    """Write a line for people."""
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
    """Write a stretch of time."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"


_ENDING = (SourceError, ImportBusyError, StorageOutageError, PruneRefusedError, LeaseLostError)


async def preflight(imports: Imports, *, as_json: bool) -> int:
    """Look at the source and at our own side; says what is in the way."""
    findings = await look(imports)
    if as_json:
        print_json({**asdict(findings), "usable": findings.usable})
    else:
        _tell(findings)
    return CLEAN if findings.usable else UNUSABLE


async def look(imports: Imports, *, tries: int = SAMPLES) -> PreflightReport:
    """Find out whether an import makes sense, looking for so many originals."""
    findings = await imports.opened.source.preflight(tries=tries)
    addresses, policy = imports.opened.source.bucket_addresses, imports.options.policy
    findings.problems += imports.import_runner.targets.problems(addresses, policy.mode)
    findings.facts += imports.import_runner.targets.facts(addresses, policy.mode)
    strangers = imports.opened.server_names - imports.import_runner.own_server_names
    findings.problems += [f"{name} is not under homeservers: nobody could ask for its media" for name in strangers]
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
    typer.echo("ready to import" if findings.usable else f"{len(findings.problems)} problems are in the way")


async def plan(imports: Imports, *, as_json: bool) -> int:
    """Say what a run would do."""
    progress = _expected(await imports.opened.source.preflight(tries=0))
    judge = imports.import_runner.judge(imports.opened.source, imports.options.policy)
    async with shown("plan", progress):
        found = await dry_run(imports.opened.source, imports.known, judge, imports.import_runner.ledger, progress)
    if as_json:
        print_json({"rows": progress.rows, "lists": progress.lists, "counts": found.counts, "bytes": found.bytes})
        return CLEAN
    print_table(
        ["what would become of it", "rows", "bytes"],
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


async def run_once(imports: Imports, *, as_json: bool) -> int:
    """Import once; the exit status says how it ended."""
    findings = await look(imports, tries=0)
    if not findings.usable:
        _tell(findings)
        return UNUSABLE
    return await _run(imports, _expected(findings), as_json=as_json)


async def _run(imports: Imports, progress: Progress, *, as_json: bool) -> int:
    await note_action(imports, "run_import")
    try:
        async with shown("run", progress):
            run_id = await imports.import_runner.run(
                imports.opened.source,
                imports.known,
                imports.options,
                progress,
                import_action(imports.settings, "prune_import"),
            )
    except _ENDING as exc:
        say(exc)
        typer.echo("what was committed is kept; run again to go on", err=True)
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
    """Say how a run ended: the worst that became of any row."""
    if progress.states[ItemState.FAILED]:
        return FAILED
    return INCOMPLETE if progress.states[ItemState.MISSING] or progress.states[ItemState.MISMATCHED] else CLEAN


async def watch(imports: Imports, stop: asyncio.Event, *, interval_s: float, as_json: bool) -> int:
    """Import again and again until told to stop; a run that fails is followed by another."""
    status = await run_once(imports, as_json=as_json)
    while not stop.is_set() and status != UNUSABLE:
        try:
            async with asyncio.timeout(max(0.1, interval_s)):
                await stop.wait()
        except TimeoutError:
            status = await run_once(imports, as_json=as_json)
    return status
