"""The permission that each command requires.

A command that is not in the table runs for nobody. What a command does to single media, users and content is checked
again where it is done, by whose they are.
"""

import functools
from collections.abc import Callable
from typing import Any

import typer

from mediarepo.model.authority import Action, Grant, Role, Thing, grant_of

_READ_STORE, _CHANGE_STORE = (Action.READ, Thing.STORE), (Action.CHANGE, Thing.STORE)
_READ_INSTALLATION, _CHANGE_INSTALLATION = (Action.READ, Thing.INSTALLATION), (Action.CHANGE, Thing.INSTALLATION)
_READ_IMPORT, _CHANGE_IMPORT = (Action.READ, Thing.IMPORT), (Action.CHANGE, Thing.IMPORT)
_READ_TASK, _CHANGE_TASK = (Action.READ, Thing.TASK), (Action.CHANGE, Thing.TASK)
_READ_RETENTION, _CHANGE_RETENTION = (Action.READ, Thing.RETENTION), (Action.CHANGE, Thing.RETENTION)
_READ_KEY, _CHANGE_KEY = (Action.READ, Thing.SIGNING_KEY), (Action.CHANGE, Thing.SIGNING_KEY)

COMMANDS: dict[str, tuple[Action, Thing]] = {
    "serve": _CHANGE_INSTALLATION,
    "migrate": _CHANGE_INSTALLATION,
    "dev": _CHANGE_INSTALLATION,
    "check-config": _READ_INSTALLATION,
    "doctor config": _READ_INSTALLATION,
    "doctor database": _READ_INSTALLATION,
    "doctor homeservers": _READ_INSTALLATION,
    "doctor scanners": _READ_INSTALLATION,
    "doctor proxy": _READ_INSTALLATION,
    "doctor federation": _READ_INSTALLATION,
    "doctor sandbox": _READ_INSTALLATION,
    "doctor stores": _READ_STORE,
    "doctor store": _READ_STORE,
    "sweep": _CHANGE_STORE,
    "fsck": _CHANGE_STORE,
    "claim": _CHANGE_STORE,
    "stores move": _CHANGE_STORE,
    "stores moves": _READ_STORE,
    "stores policies": _READ_STORE,
    "stores plan": _READ_STORE,
    "stores run": _CHANGE_STORE,
    "stores arm": _CHANGE_STORE,
    "stores disarm": _CHANGE_STORE,
    "rebuild": _CHANGE_STORE,
    "import preflight": _READ_IMPORT,
    "import plan": _READ_IMPORT,
    "import run": _CHANGE_IMPORT,
    "import watch": _CHANGE_IMPORT,
    "import status": _READ_IMPORT,
    "import report": _READ_IMPORT,
    "import verify": _READ_IMPORT,
    "import finalize": _CHANGE_IMPORT,
    "import undo": _CHANGE_IMPORT,
    "export": _READ_IMPORT,
    "keys generate": _CHANGE_KEY,
    "keys show": _READ_KEY,
    "keys convert": _CHANGE_KEY,
    "keys merge": _CHANGE_KEY,
    "keys extract": _READ_KEY,
    "media info": (Action.SEE, Thing.OWN_MEDIA),
    "media show": (Action.SEE, Thing.OWN_MEDIA),
    "media search": (Action.SEE, Thing.OWN_MEDIA),
    "media delete": (Action.DELETE, Thing.OWN_MEDIA),
    "media restore": (Action.RESTORE, Thing.OWN_MEDIA),
    "media hold": (Action.HOLD, Thing.OWN_MEDIA),
    "media release": (Action.RELEASE, Thing.OWN_MEDIA),
    "media pin": (Action.PIN, Thing.OWN_MEDIA),
    "media unpin": (Action.UNPIN, Thing.OWN_MEDIA),
    "quarantine add": (Action.HIDE, Thing.CONTENT),
    "quarantine remove": (Action.UNHIDE, Thing.CONTENT),
    "quarantine user": (Action.HIDE, Thing.OWN_USER),
    "quarantine server": (Action.HIDE, Thing.SERVER),
    "quarantine import": (Action.HIDE, Thing.CONTENT),
    "quarantine export": (Action.READ, Thing.CONTENT),
    "scan status": (Action.READ, Thing.CONTENT),
    "scan rescan": (Action.HIDE, Thing.CONTENT),
    "scan release": (Action.UNHIDE, Thing.CONTENT),
    "retention list": _READ_RETENTION,
    "retention plan": _READ_RETENTION,
    "retention run": _CHANGE_RETENTION,
    "retention arm": _CHANGE_RETENTION,
    "retention disarm": _CHANGE_RETENTION,
    "tasks list": _READ_TASK,
    "tasks add": _CHANGE_TASK,
    "tasks watch": _READ_TASK,
    "tasks cancel": _CHANGE_TASK,
    "failed-items list": _READ_TASK,
    "failed-items retry": _CHANGE_TASK,
    "audit": (Action.READ, Thing.AUDIT),
    "usage": (Action.READ, Thing.USAGE),
    "preview": (Action.SEE, Thing.PREVIEW),
    "init": _READ_INSTALLATION,
    "examples": _READ_INSTALLATION,
    "completion": _READ_INSTALLATION,
    "man": _READ_INSTALLATION,
}


def is_granted(name: str) -> bool:
    """Return whether the table of authority grants a command to the command line."""
    asks = COMMANDS.get(name)
    return asks is not None and grant_of(Role.COMMAND_LINE, *asks) is Grant.YES


def require_permission(command: Any, name: str) -> Any:  # noqa: ANN401 - click's commands and groups
    """Make a command, or each command of a group, check the table of authority before it runs."""
    for below, one in getattr(command, "commands", {}).items():
        require_permission(one, f"{name} {below}")
    if not hasattr(command, "commands"):
        command.callback = _asking(command.callback, name)
    return command


def _asking(callback: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(callback)
    def ask_then_run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the command takes and gives
        if not is_granted(name):
            typer.echo(f"mediarepo: the command line may not do this: {name}", err=True)
            raise typer.Exit(1)
        return callback(*args, **kwargs)

    return ask_then_run
