"""`mediarepo completion` and `man`: what shells and `man` read, made from the commands themselves."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer._completion_shared import get_completion_script

from mediarepo.cli.version import version_text


class Shell(StrEnum):
    """Shells that can complete commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell: bash, zsh or fish.")]) -> None:
    """Print the completion script of a shell; it is for you to put where your shell looks for it."""
    script = get_completion_script(prog_name="mediarepo", complete_var="_MEDIAREPO_COMPLETE", shell=shell.value)
    typer.echo(script)


def man(context: typer.Context) -> None:
    """Print the manual page mediarepo(1), for `man -l -` or /usr/share/man/man1/mediarepo.1."""
    typer.echo("\n".join(manual_page(context.find_root().command)))


def manual_page(root: Any) -> Iterator[str]:  # noqa: ANN401 - the library's group
    """Write the manual page of a command line as roff (man(7)), line by line."""
    yield f'.TH MEDIAREPO 1 "" "mediarepo {_roff(version_text())}" "User Commands"'
    yield from (".SH NAME", rf"mediarepo \- {_roff(_sentence(root))}", ".SH SYNOPSIS")
    yield from (".B mediarepo", r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGS\fR]...", ".SH COMMANDS")
    for name, command in _commands(root, ""):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        words = " ".join(rf"\fI{_roff(one.name.upper())}\fR" for one in arguments)
        yield from (".TP", rf"\fBmediarepo {_roff(name)}\fR {words}".rstrip(), _roff(_sentence(command)))
        options = [one for one in command.params if not getattr(one, "hidden", False)]
        if options:
            yield ".RS"
        for one in options:
            label = one.name.upper() if one.param_type_name == "argument" else ", ".join(one.opts)
            yield from (".TP", rf"\fB{_roff(label)}\fR", _roff(getattr(one, "help", "") or ""))
        if options:
            yield ".RE"
    yield from (
        ".SH EXIT STATUS",
        *_EXIT_STATUS,
        ".SH FILES",
        ".I config.yaml",
        "or the file that MEDIAREPO_CONFIG names",
    )


_EXIT_STATUS = (
    ".TP",
    "0",
    "done",
    ".TP",
    "1",
    "something failed, or is not as it should be",
    ".TP",
    "2",
    "the command line or the configuration is wrong",
    ".TP",
    "3",
    "not everything could be checked",
    ".TP",
    "5",
    "nothing was done, since nobody confirmed",
    ".TP",
    "6",
    "servers or imports are running",
)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as above
    if not hasattr(command, "list_commands"):
        yield name, command
        return
    context = typer.Context(command)
    for below in command.list_commands(context):
        yield from _commands(command.get_command(context, below), f"{name} {below}".strip())


def _sentence(command: Any) -> str:  # noqa: ANN401 - as above
    return " ".join((command.help or "").split())


def _roff(text: str) -> str:
    """Escape what roff would take for itself: backslashes, hyphens, and a control character at the beginning."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
