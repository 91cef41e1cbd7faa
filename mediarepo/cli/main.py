"""The command line's entry point; subcommands are loaded when they are used."""

import gc
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from mediarepo.cli.permissions import ask_first


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
            single = typer.Typer()
            single.command()(found)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command


class _Commands(LazyGroup):
    places = {
        "serve": "mediarepo.cli.operations:serve",
        "migrate": "mediarepo.cli.operations:migrate",
        "check-config": "mediarepo.cli.operations:check_config",
        "sweep": "mediarepo.cli.operations:sweep",
        "fsck": "mediarepo.cli.operations:fsck",
        "claim": "mediarepo.cli.operations:claim",
        "rebuild": "mediarepo.cli.rebuild:rebuild",
        "dev": "mediarepo.cli.operations:dev",
        "import": "mediarepo.cli.imports.commands:imports_cli",
        "export": "mediarepo.cli.export:export",
        "keys": "mediarepo.cli.keys:keys_cli",
        "doctor": "mediarepo.cli.doctor:doctor_cli",
        "media": "mediarepo.cli.media:media_cli",
        "quarantine": "mediarepo.cli.quarantine:quarantine_cli",
        "retention": "mediarepo.cli.retention:retention_cli",
        "tasks": "mediarepo.cli.tasks:tasks_cli",
        "failed-items": "mediarepo.cli.tasks:failed_items_cli",
        "audit": "mediarepo.cli.tasks:audit",
        "usage": "mediarepo.cli.tasks:usage",
        "preview": "mediarepo.cli.url_preview:preview",
    }

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as the library has it
        """Load a command, which asks the table of authority before it does anything."""
        command = super().get_command(ctx, cmd_name)
        return None if command is None else ask_first(command, cmd_name)


cli = typer.Typer(
    name="mediarepo",
    cls=_Commands,
    help="A standalone Matrix media repository: all bytes in S3, all metadata in Postgres.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback(invoke_without_command=True)
def _options(*, show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if show_version:
        typer.echo(f"mediarepo {version('matrix-mediarepo')}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    cli()
    sys.exit(0)
