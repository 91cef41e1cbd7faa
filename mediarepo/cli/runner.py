"""Runs a coroutine as a program: reads the settings, handles signals, prints errors in one line."""

import asyncio
import gc
import importlib
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from mediarepo.config.loading import ConfigError, load_settings
from mediarepo.config.server import ListenError
from mediarepo.config.settings import Settings
from mediarepo.embedded.data_folder import EmbeddedError
from mediarepo.errors import MatrixError
from mediarepo.federation.key_files import KeyFileError
from mediarepo.importers.errors import SourceError
from mediarepo.model.concurrency import Shutdown

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", envvar="MEDIAREPO_CONFIG", help="The configuration file.", show_default=True)
]
DEFAULT_CONFIG = Path("config.yaml")


def read_settings(path: Path) -> Settings:
    """Read and check the configuration. Raises typer.Exit(2) after a message when it is wrong."""
    try:
        return load_settings(path)
    except ConfigError as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(2) from exc


def _new_loop() -> asyncio.AbstractEventLoop:
    """Prefer uvloop where it is installed: it costs a tenth less per small request."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end.

    Raises typer.Exit(1) after one line for errors that the operator can fix; others propagate.
    """
    gc.freeze()  # what was imported stays: there is no use in looking through it again and again
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(main)
    except (ListenError, EmbeddedError, KeyFileError, SourceError) as exc:
        typer.echo(f"mediarepo: {exc}", err=True)
        raise typer.Exit(1) from exc
    except (MatrixError, OSError) as exc:
        cause = "" if exc.__cause__ is None else f" ({exc.__cause__})"
        typer.echo(f"mediarepo: {exc}{cause}", err=True)
        raise typer.Exit(1) from exc


def stop_signal() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    stop = asyncio.Event()

    def advance() -> bool:
        going_on = not stop.is_set()
        stop.set()
        return going_on

    _on_stop_signals(advance)
    return stop


def server_signals() -> tuple[Shutdown, asyncio.Event]:
    """Return a shutdown that SIGINT and SIGTERM begin, each further one hastens it, and an event that SIGHUP sets."""
    shutdown, reload = Shutdown(), asyncio.Event()
    _on_stop_signals(shutdown.advance)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    return shutdown, reload


def ignore_sighup() -> None:
    """Ignore SIGHUP until there is something to reload; child processes do not inherit this."""
    signal.signal(signal.SIGHUP, lambda *_: None)


def _on_stop_signals(advance: Callable[[], bool]) -> None:
    """Call `advance` at each signal to stop; end the process at once when it says that nothing is left to hasten."""
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if not advance():
            raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
