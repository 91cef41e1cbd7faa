"""Asks before what cannot be undone: on a terminal, or by `--yes`."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

NOT_CONFIRMED = 5
"""The exit status of a command that did nothing because nobody said yes."""

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking; needed where there is no terminal.")]


def check_confirmed(plan: Sequence[str], *, yes: bool) -> None:
    """Say what would be done, and end the program unless that is wanted."""
    for line in plan:
        typer.echo(line, err=True)
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        typer.echo("this cannot be undone, and there is no terminal to ask at: say --yes; nothing was done", err=True)
        raise typer.Exit(NOT_CONFIRMED)
    typer.echo("This cannot be undone. Type yes to go on: ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() != "yes":
        typer.echo("nothing was done", err=True)
        raise typer.Exit(NOT_CONFIRMED)
