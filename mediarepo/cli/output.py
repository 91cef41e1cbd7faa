"""Output of commands: tables, JSON, a progress line, and questions before what cannot be undone."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from mediarepo.model.declared import LAST_TS

NOT_CONFIRMED = 5
"""The exit status of a command that did nothing because nobody said yes."""

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking; needed where there is no terminal.")]


def check_confirmed(plan: Sequence[str], *, yes: bool) -> None:
    """Describe what would be done, and ask for confirmation. Raises typer.Exit(5) unless the operator agrees."""
    for line in plan:
        typer.echo(line, err=True)
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        typer.echo(
            "this cannot be undone, and there is no terminal to ask for confirmation: use --yes; nothing was done",
            err=True,
        )
        raise typer.Exit(NOT_CONFIRMED)
    typer.echo("This cannot be undone. Type yes to continue: ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() != "yes":
        typer.echo("nothing was done", err=True)
        raise typer.Exit(NOT_CONFIRMED)


AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_REFRESH_S = 0.2


def human_bytes(count: int) -> str:
    """Format a number of bytes with three digits and a unit."""
    value, unit = float(count), 0
    while abs(value) >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.{0 if unit == 0 else 1}f} {_UNITS[unit]}"


def human_time(ts: int | None) -> str:
    """Format a time (ms since 1970) in UTC; "-" for None."""
    if ts is None:
        return "-"
    return datetime.fromtimestamp(min(max(ts // 1000, 0), LAST_TS // 1000), UTC).strftime("%Y-%m-%d %H:%M:%S")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(heads), *texts]) for column in range(len(heads))]
    right = [all(isinstance(row[column], int) for row in rows) and bool(rows) for column in range(len(heads))]
    for line in [list(heads), *texts]:
        cells = [
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(line, widths, right, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def print_json(value: object) -> None:
    """Print a JSON document."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.asynccontextmanager
async def progress_line(text: Callable[[], str]) -> AsyncIterator[None]:
    """Show a line that is rewritten until the block ends, on terminals only."""
    if not sys.stderr.isatty():
        yield
        return

    async def write() -> None:
        while True:
            sys.stderr.write(f"\r\x1b[K{text()}")
            sys.stderr.flush()
            await asyncio.sleep(_REFRESH_S)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
