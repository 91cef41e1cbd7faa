"""The command line's entry point; subcommands are loaded when they are used."""

import difflib
import gc
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from mediarepo.cli.permissions import require_permission
from mediarepo.cli.version import version_text


def _load(module: str) -> Any:  # noqa: ANN401 - a module
    """Import without looking for garbage, of which an import makes none: a tenth quicker."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return import_module(module)
    finally:
        if collecting:
            gc.enable()


class LazyGroup(TyperGroup):
    """A group whose commands are named by `places`: a module, a colon, and a function or a Typer in it."""

    places: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002, ANN401 - as the library has it
        """Name all commands."""
        return list(self.places)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002, ANN401 - as above
        """Load one; None when there is no such command."""
        if cmd_name not in self.places:
            return None
        module, _, name = self.places[cmd_name].partition(":")
        found = getattr(_load(module), name)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            single = typer.Typer(add_completion=False)
            single.command()(found)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as the library has it
        """Find the command that is meant; a misspelt one is refused with those that are close."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=3)
            meant = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)


class _Commands(LazyGroup):
    places = {
        "serve": "mediarepo.cli.serve:serve",
        "migrate": "mediarepo.cli.installation:migrate",
        "check-config": "mediarepo.cli.installation:check_config",
        "sweep": "mediarepo.cli.operations:sweep",
        "fsck": "mediarepo.cli.operations:fsck",
        "claim": "mediarepo.cli.operations:claim",
        "stores": "mediarepo.cli.stores:stores_cli",
        "rebuild": "mediarepo.cli.rebuild:rebuild",
        "dev": "mediarepo.cli.installation:dev",
        "import": "mediarepo.cli.imports.commands:imports_cli",
        "export": "mediarepo.cli.export:export",
        "keys": "mediarepo.cli.keys:keys_cli",
        "doctor": "mediarepo.cli.doctor:doctor_cli",
        "media": "mediarepo.cli.media:media_cli",
        "quarantine": "mediarepo.cli.quarantine:quarantine_cli",
        "scan": "mediarepo.cli.scan:scan_cli",
        "retention": "mediarepo.cli.retention:retention_cli",
        "tasks": "mediarepo.cli.tasks:tasks_cli",
        "failed-items": "mediarepo.cli.tasks:failed_items_cli",
        "audit": "mediarepo.cli.tasks:audit",
        "usage": "mediarepo.cli.tasks:usage",
        "preview": "mediarepo.cli.url_preview:preview",
        "init": "mediarepo.cli.init:init",
        "examples": "mediarepo.cli.examples:examples",
        "completion": "mediarepo.cli.manual:completion",
        "man": "mediarepo.cli.manual:man",
    }

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as the library has it
        """Load a command, which asks the table of authority before it does anything."""
        command = super().get_command(ctx, cmd_name)
        return None if command is None else require_permission(command, cmd_name)


cli = typer.Typer(
    name="mediarepo",
    cls=_Commands,
    help="A standalone Matrix media repository: all bytes in S3, all metadata in Postgres.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@cli.callback(invoke_without_command=True)
def _options(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version, with the commit where it is known.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(f"mediarepo {version_text()}")
        raise typer.Exit


COMPLETION_VARIABLE = "_MEDIAREPO_COMPLETE"
"""Set by the completion scripts of `mediarepo completion`, which ask what can follow."""


def main() -> None:
    """Run the command line."""
    if COMPLETION_VARIABLE in os.environ:
        _load("typer.completion").completion_init()
    cli(prog_name="mediarepo")
    sys.exit(0)
