"""The command line."""

import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from mediarepo.cli.authority import ask_first
from mediarepo.cli.lazily import LazyGroup


class _Commands(LazyGroup):
    places = {
        "serve": "mediarepo.cli.operating:serve",
        "migrate": "mediarepo.cli.operating:migrate",
        "check-config": "mediarepo.cli.operating:check_config",
        "sweep": "mediarepo.cli.operating:sweep",
        "fsck": "mediarepo.cli.operating:fsck",
        "claim": "mediarepo.cli.operating:claim",
        "dev": "mediarepo.cli.operating:dev",
        "import": "mediarepo.cli.imports.commands:imports_cli",
        "export": "mediarepo.cli.export:export",
        "keys": "mediarepo.cli.keys:keys_cli",
        "doctor": "mediarepo.cli.doctor:doctor_cli",
        "media": "mediarepo.cli.media:media_cli",
        "quarantine": "mediarepo.cli.quarantine:quarantine_cli",
        "retention": "mediarepo.cli.retention:retention_cli",
        "tasks": "mediarepo.cli.tasks:tasks_cli",
        "failed-items": "mediarepo.cli.failed_items:failed_items_cli",
        "audit": "mediarepo.cli.tasks:audit",
        "usage": "mediarepo.cli.usage:usage",
        "preview": "mediarepo.cli.preview:preview",
    }

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as the library has it
        """Load a command, which asks the table of authority before it does anything."""
        command = super().get_command(ctx, cmd_name)
        return None if command is None else ask_first(command, cmd_name)


cli = typer.Typer(
    name="mediarepo",
    cls=_Commands,
    help="A standalone Matrix media repository: every byte in S3, every fact in Postgres.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback(invoke_without_command=True)
def _options(
    *, show_version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False
) -> None:
    if show_version:
        typer.echo(f"mediarepo {version('matrix-mediarepo')}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    cli()
    sys.exit(0)
