"""The report of an import as text, JSON lines, CSV and HTML."""

import csv
import html
import json
from dataclasses import asdict, dataclass
from typing import IO, Protocol

from mediarepo.cli.output import human_bytes
from mediarepo.model.import_ledger import ItemState, LedgerItem, LedgerOrphan, LedgerSum

_COLUMNS = ("server_name", "media_id", "kind", "state", "mode", "reason", "size_bytes", "place", "gone", "verified")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The figures of an import; `rows` is how many its last complete run met, `since` what clients asked for later.

    They balance when every row that was met has a line.
    """

    name: str
    rows: int | None
    since: int
    sums: list[LedgerSum]
    gone: int
    orphans: int
    orphan_bytes: int

    def count(self, state: ItemState) -> int:
        """Count the lines of one state."""
        return sum(one.count for one in self.sums if one.state is state)

    def bytes(self, state: ItemState) -> int:
        """Sum up the bytes of one state."""
        return sum(one.size_bytes for one in self.sums if one.state is state)

    @property
    def lines(self) -> int:
        """How many lines there are of rows that the source still has."""
        return sum(one.count for one in self.sums)

    @property
    def balances(self) -> bool:
        """Whether every row that was met has a line, and no line is without a row."""
        return self.rows is not None and self.rows + self.since == self.lines

    @property
    def words(self) -> str:
        """The sum that must come out."""
        ends = " + ".join(f"{self.count(state)} {state}" for state in ItemState)
        met = "no run has seen all rows yet" if self.rows is None else f"{self.rows} rows"
        met += f" + {self.since} looked up since" if self.since else ""
        sign = "=" if self.balances else "≠"
        return f"{met} {sign} {ends}"


class Writer(Protocol):
    """Writes an account piece by piece, so that it may be of any length."""

    def begin(self, account: ImportReport, /) -> None:
        """Write what comes first."""
        ...

    def item(self, item: LedgerItem) -> None:
        """Write a line about a row."""
        ...

    def orphan(self, orphan: LedgerOrphan) -> None:
        """Write a line about bytes without a row."""
        ...

    def end(self, account: ImportReport, /) -> None:
        """Write what comes last."""
        ...


class TextForm:
    """For reading."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, account: ImportReport) -> None:
        """Write the sums."""
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
        """Write what became of a row."""
        gone = " (gone from the source since)" if item.gone else ""
        why = item.reason or item.mode or ""
        self._say(f"{item.state}: mxc://{item.server_name}/{item.media_id}: {why}{gone}")

    def orphan(self, orphan: LedgerOrphan) -> None:
        """Write where bytes lie."""
        self._say(f"orphan: {orphan.place} ({orphan.size_bytes} bytes)")

    def end(self, account: ImportReport) -> None:
        """Write the sum."""
        self._say(account.words)

    def _say(self, text: str) -> None:
        self._file.write(text + "\n")


class JsonLinesForm:
    """For programs: one object a line, the sums last."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, account: ImportReport) -> None:
        """Write nothing: the sums come last."""

    def item(self, item: LedgerItem) -> None:
        """Write what became of a row."""
        self._say({"type": "item", **asdict(item)})

    def orphan(self, orphan: LedgerOrphan) -> None:
        """Write where bytes lie."""
        self._say({"type": "orphan", **asdict(orphan)})

    def end(self, account: ImportReport) -> None:
        """Write the sum."""
        self._say({"type": "summary", **summary(account)})

    def _say(self, value: dict[str, object]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")


class CsvForm:
    """For spreadsheets; orphans are lines of the state "orphan", the sums are left out."""

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file)

    def begin(self, _account: ImportReport) -> None:
        """Write the heads of the columns."""
        self._writer.writerow(_COLUMNS)

    def item(self, item: LedgerItem) -> None:
        """Write what became of a row."""
        values = asdict(item)
        self._writer.writerow([_tame(values[name]) for name in _COLUMNS])

    def orphan(self, orphan: LedgerOrphan) -> None:
        """Write where bytes lie."""
        values = {"state": "orphan", "size_bytes": orphan.size_bytes, "place": orphan.place}
        self._writer.writerow([_tame(values.get(name)) for name in _COLUMNS])

    def end(self, account: ImportReport) -> None:
        """Write nothing: a sum is no line of the table."""


class HtmlForm:
    """For browsers: one file that needs nothing else."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, account: ImportReport) -> None:
        """Write the sums, and begin the table."""
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
            f"<table><tr><th>rows<th>state<th>why or how<th>bytes{sums}</table>"
            "<table><tr><th>media<th>state<th>why or how<th>bytes<th>place\n"
        )

    def item(self, item: LedgerItem) -> None:
        """Write a row of the table."""
        state = f"{item.state}, gone" if item.gone else item.state
        cells = [f"mxc://{item.server_name}/{item.media_id}", state, item.reason or item.mode, item.size_bytes]
        self._file.write(_row([*cells, item.place]) + "\n")

    def orphan(self, orphan: LedgerOrphan) -> None:
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
    """Give the figures for programs."""
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
