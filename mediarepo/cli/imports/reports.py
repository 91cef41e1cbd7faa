"""`mediarepo import NAME status | report`: what the ledger says."""

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import IO

import typer

from mediarepo.app.build_transfers import build_importer
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.imports.options import CLEAN, FAILED, INCOMPLETE, STOPPED
from mediarepo.cli.imports.report_formats import (
    CsvForm,
    HtmlForm,
    ImportReport,
    JsonLinesForm,
    TextForm,
    Writer,
    summary,
)
from mediarepo.cli.output import human_time, print_json, print_table
from mediarepo.config.settings import Settings
from mediarepo.model.import_ledger import ImportSource, ItemState
from mediarepo.services.imports.run import ImportRunner


class Form(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    HTML = "html"


_WRITERS: dict[Form, type[TextForm | JsonLinesForm | CsvForm | HtmlForm]] = {
    Form.TEXT: TextForm,
    Form.JSONL: JsonLinesForm,
    Form.CSV: CsvForm,
    Form.HTML: HtmlForm,
}


async def source_of(import_runner: ImportRunner, name: str) -> ImportSource:
    """Find a source that was imported from, or end the program."""
    known = await import_runner.runs.find_source(name)
    if known is None:
        typer.echo(f"mediarepo: nothing was ever imported from {name!r}", err=True)
        raise typer.Exit(STOPPED)
    return known


async def account_of(import_runner: ImportRunner, known: ImportSource) -> ImportReport:
    """Add up the ledger."""
    last = await import_runner.runs.last_complete(known.source_id)
    rows = None if last is None else int(str(last.figures.get("rows", 0)))
    orphans = orphan_bytes = 0
    async for orphan in import_runner.ledger.orphans(known.source_id):
        orphans += 1
        orphan_bytes += orphan.size_bytes
    sums = await import_runner.ledger.sums(known.source_id)
    since = 0 if last is None else await import_runner.ledger.count_since(known.source_id, last.run_id)
    gone = await import_runner.ledger.count_gone(known.source_id)
    return ImportReport(known.name, rows, since, sums, gone, orphans, orphan_bytes)


async def status(settings: Settings, name: str, *, as_json: bool) -> None:
    """Show sums and the last runs."""
    async with open_foundation(settings) as foundation:
        import_runner = build_importer(foundation)
        known = await source_of(import_runner, name)
        account = await account_of(import_runner, known)
        runs = await import_runner.runs.latest(known.source_id)
    if as_json:
        print_json({"source": asdict(known), **summary(account), "runs": [asdict(one) for one in runs]})
        return
    TextForm(sys.stdout).begin(account)
    typer.echo(account.words)
    if known.finalized_ts is not None:
        typer.echo(f"finalized {human_time(known.finalized_ts)}")
    print_table(
        ["run", "command", "began", "last sign", "ended", "rows"],
        [
            (
                one.run_id,
                one.command,
                human_time(one.started_ts),
                human_time(one.heartbeat_ts),
                "complete" if one.complete else one.error or ("done" if one.finished_ts else "under way, or killed"),
                int(str(one.figures.get("rows", 0))),
            )
            for one in runs
        ],
    )


async def report(settings: Settings, name: str, *, form: Form, output: str, everything: bool) -> None:
    """Write the account of an import, and end with the status of what is amiss."""
    async with open_foundation(settings) as foundation:
        import_runner = build_importer(foundation)
        known = await source_of(import_runner, name)
        account = await account_of(import_runner, known)
        if output == "-":
            await _write(import_runner, known, account, _WRITERS[form](sys.stdout), everything=everything)
        else:
            with _opened(output) as file:
                await _write(import_runner, known, account, _WRITERS[form](file), everything=everything)
    raise typer.Exit(_status(account))


def _opened(output: str) -> IO[str]:
    try:
        return Path(output).open("w", encoding="utf-8", newline="")
    except OSError as exc:
        typer.echo(f"mediarepo: {output}: {exc.strerror}", err=True)
        raise typer.Exit(STOPPED) from exc


async def _write(
    import_runner: ImportRunner, known: ImportSource, account: ImportReport, writer: Writer, *, everything: bool
) -> None:
    writer.begin(account)
    async for item in import_runner.ledger.items(known.source_id, only_open=not everything):
        writer.item(item)
    async for orphan in import_runner.ledger.orphans(known.source_id):
        writer.orphan(orphan)
    writer.end(account)


def _status(account: ImportReport) -> int:
    if account.count(ItemState.FAILED) or not account.balances:
        return FAILED
    return INCOMPLETE if account.count(ItemState.MISSING) + account.count(ItemState.MISMATCHED) else CLEAN
