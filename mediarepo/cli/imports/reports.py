"""`mediarepo import NAME status | report`: what the ledger says, as text, JSON lines, CSV and HTML."""

import csv
import html
import json
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Protocol

import typer

from mediarepo.app.build_imports_exports import build_importer
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.imports.options import CLEAN, FAILED, INCOMPLETE, STOPPED
from mediarepo.cli.output import human_bytes, human_time, print_json, print_table
from mediarepo.config.settings import Settings
from mediarepo.model.import_ledger import ImportSource, ItemState, LedgerItem, LedgerSum, LedgerUnclaimedBytes
from mediarepo.services.imports.run import ImportRunner

_COLUMNS = ("server_name", "media_id", "kind", "state", "mode", "reason", "size_bytes", "place", "gone", "verified")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Totals of an import; `rows` counts those of its last complete run, `since` those looked up for clients later.

    They balance when every row of the source has one line in the ledger.
    """

    name: str
    rows: int | None
    since: int
    sums: list[LedgerSum]
    gone: int
    orphans: int
    orphan_bytes: int

    def count(self, state: ItemState) -> int:
        """Count the lines in one state."""
        return sum(one.count for one in self.sums if one.state is state)

    def bytes(self, state: ItemState) -> int:
        """Add up the bytes in one state."""
        return sum(one.size_bytes for one in self.sums if one.state is state)

    @property
    def lines(self) -> int:
        """How many lines belong to rows that the source still has."""
        return sum(one.count for one in self.sums)

    @property
    def balances(self) -> bool:
        """Whether every row has one line, and every line a row."""
        return self.rows is not None and self.rows + self.since == self.lines

    @property
    def words(self) -> str:
        """The equation of rows and lines, as text."""
        ends = " + ".join(f"{self.count(state)} {state}" for state in ItemState)
        met = "no run is complete yet" if self.rows is None else f"{self.rows} rows"
        met += f" + {self.since} looked up since" if self.since else ""
        sign = "=" if self.balances else "≠"
        return f"{met} {sign} {ends}"


class ReportWriter(Protocol):
    """Writes a report line by line, so that its length is not limited by memory."""

    def begin(self, account: ImportReport, /) -> None:
        """Write the beginning of the report."""
        ...

    def item(self, item: LedgerItem) -> None:
        """Write one row of the source."""
        ...

    def orphan(self, orphan: LedgerUnclaimedBytes) -> None:
        """Write one piece of unclaimed bytes."""
        ...

    def end(self, account: ImportReport, /) -> None:
        """Write the end of the report."""
        ...


class TextFormat:
    """Plain text."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, account: ImportReport) -> None:
        """Write the totals."""
        self._say(f"import {account.name}")
        for one in account.sums:
            about = one.reason or one.mode or ""
            self._say(f"  {one.count:>9} {one.state:<10} {human_bytes(one.size_bytes):>10}  {about}")
        if account.gone:
            self._say(f"  {account.gone:>9} gone from the source since")
        if account.orphans:
            size = human_bytes(account.orphan_bytes)
            self._say(f"  {account.orphans:>9} orphans    {size:>10}  bytes that no row mentions; not imported")

    def item(self, item: LedgerItem) -> None:
        """Write one row of the source."""
        gone = " (gone from the source since)" if item.gone else ""
        why = item.reason or item.mode or ""
        self._say(f"{item.state}: mxc://{item.server_name}/{item.media_id}: {why}{gone}")

    def orphan(self, orphan: LedgerUnclaimedBytes) -> None:
        """Write the place of unclaimed bytes."""
        self._say(f"orphan: {orphan.place} ({orphan.size_bytes} bytes)")

    def end(self, account: ImportReport) -> None:
        """Write the equation of rows and lines."""
        self._say(account.words)

    def _say(self, text: str) -> None:
        self._file.write(text + "\n")


class JsonLinesFormat:
    """JSON lines: one object a line, the totals last."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, account: ImportReport) -> None:
        """Write nothing: the totals come last."""

    def item(self, item: LedgerItem) -> None:
        """Write one row of the source."""
        self._say({"type": "item", **asdict(item)})

    def orphan(self, orphan: LedgerUnclaimedBytes) -> None:
        """Write the place of unclaimed bytes."""
        self._say({"type": "orphan", **asdict(orphan)})

    def end(self, account: ImportReport) -> None:
        """Write the totals."""
        self._say({"type": "summary", **summary(account)})

    def _say(self, value: dict[str, object]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")


class CsvFormat:
    """CSV; unclaimed bytes are lines of the state "orphan", totals are left out."""

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file)

    def begin(self, _account: ImportReport) -> None:
        """Write the column names."""
        self._writer.writerow(_COLUMNS)

    def item(self, item: LedgerItem) -> None:
        """Write one row of the source."""
        values = asdict(item)
        self._writer.writerow([_tame(values[name]) for name in _COLUMNS])

    def orphan(self, orphan: LedgerUnclaimedBytes) -> None:
        """Write the place of unclaimed bytes."""
        values = {"state": "orphan", "size_bytes": orphan.size_bytes, "place": orphan.place}
        self._writer.writerow([_tame(values.get(name)) for name in _COLUMNS])

    def end(self, account: ImportReport) -> None:
        """Write nothing: totals are no line of the table."""


class HtmlFormat:
    """HTML: one self-contained file."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, account: ImportReport) -> None:
        """Write the totals and the head of the table."""
        name = html.escape(account.name)
        sums = "".join(
            _row([one.count, one.state, one.reason or one.mode or "", human_bytes(one.size_bytes)])
            for one in account.sums
        )
        self._file.write(
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>Import of {name}</title><style>{_STYLE}</style><h1>Import of {name}</h1>"
            f"<p><strong>{html.escape(account.words)}</strong></p>"
            f"<p>{account.gone} gone from the source since, {account.orphans} orphans"
            f" ({human_bytes(account.orphan_bytes)}).</p>"
            f"<table><tr><th>rows<th>state<th>reason or mode<th>bytes{sums}</table>"
            "<table><tr><th>media<th>state<th>reason or mode<th>bytes<th>place\n"
        )

    def item(self, item: LedgerItem) -> None:
        """Write a row of the table."""
        state = f"{item.state}, gone" if item.gone else item.state
        cells = [f"mxc://{item.server_name}/{item.media_id}", state, item.reason or item.mode, item.size_bytes]
        self._file.write(_row([*cells, item.place]) + "\n")

    def orphan(self, orphan: LedgerUnclaimedBytes) -> None:
        """Write a row of the table."""
        self._file.write(_row(["", "orphan", "no row mentions it", orphan.size_bytes, orphan.place]) + "\n")

    def end(self, _account: ImportReport) -> None:
        """End the table."""
        self._file.write("</table></html>\n")


_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;max-width:75rem}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left;overflow-wrap:anywhere}th{background:#f3f3f3}"
    "td:nth-child(2),td:nth-child(4){white-space:nowrap}"
)


def _row(cells: list[object]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape('' if cell is None else str(cell))}" for cell in cells)


def _tame(value: object) -> object:
    """Keep spreadsheets from taking names for formulas."""
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return f"'{value}"
    return value


def summary(account: ImportReport) -> dict[str, object]:
    """Return the totals as a JSON object."""
    return {
        "rows": account.rows,
        "since": account.since,
        **{str(state): account.count(state) for state in ItemState},
        "balances": account.balances,
        "gone": account.gone,
        "orphans": account.orphans,
        "orphan_bytes": account.orphan_bytes,
        "sums": [asdict(one) for one in account.sums],
    }


class ReportFormat(StrEnum):
    """Output formats of `mediarepo import NAME report`."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    HTML = "html"


_WRITERS: dict[ReportFormat, type[TextFormat | JsonLinesFormat | CsvFormat | HtmlFormat]] = {
    ReportFormat.TEXT: TextFormat,
    ReportFormat.JSONL: JsonLinesFormat,
    ReportFormat.CSV: CsvFormat,
    ReportFormat.HTML: HtmlFormat,
}


async def source_of(import_runner: ImportRunner, name: str) -> ImportSource:
    """Return the source of that name. Raises typer.Exit(1) after a message when nothing was ever imported from it."""
    known = await import_runner.runs.find_source(name)
    if known is None:
        typer.echo(f"mediarepo: nothing was ever imported from {name!r}", err=True)
        raise typer.Exit(STOPPED)
    return known


async def account_of(import_runner: ImportRunner, known: ImportSource) -> ImportReport:
    """Add up the ledger of a source."""
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
    """Print totals and the last runs."""
    async with open_foundation(settings) as foundation:
        import_runner = build_importer(foundation)
        known = await source_of(import_runner, name)
        account = await account_of(import_runner, known)
        runs = await import_runner.runs.latest(known.source_id)
    if as_json:
        print_json({"source": asdict(known), **summary(account), "runs": [asdict(one) for one in runs]})
        return
    TextFormat(sys.stdout).begin(account)
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
                "complete" if one.complete else one.error or ("done" if one.finished_ts else "running, or killed"),
                int(str(one.figures.get("rows", 0))),
            )
            for one in runs
        ],
    )


async def report(settings: Settings, name: str, *, form: ReportFormat, output: str, everything: bool) -> None:
    """Write the report of an import.

    Raises typer.Exit with its status: 0 when every row was imported, else the worst.
    """
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
    import_runner: ImportRunner, known: ImportSource, account: ImportReport, writer: ReportWriter, *, everything: bool
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
