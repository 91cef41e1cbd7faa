"""Commands that are loaded when they are asked for: none waits for what the others need."""

import gc
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


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
