"""Commands that are loaded when they are asked for: none waits for what the others need."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


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
        found = getattr(import_module(module), name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer()
            single.command()(found)
            found = single
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command
