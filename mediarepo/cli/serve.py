"""`mediarepo serve`."""

from pathlib import Path
from typing import Annotated

import structlog
import typer

from mediarepo.app.server import serve as serve_until
from mediarepo.app.server import supervise
from mediarepo.app.supervisor import Worker
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, ignore_sighup, read_settings, run, server_signals
from mediarepo.config.server import ListenError
from mediarepo.config.settings import Settings
from mediarepo.config.warnings import config_warnings
from mediarepo.telemetry.logs import set_up_logs

log = structlog.get_logger(__name__)


Workers = Annotated[
    int | None, typer.Option(min=1, max=64, help="Number of server processes; default: listen.workers.")
]


def serve(config: ConfigFile = DEFAULT_CONFIG, workers: Workers = None) -> None:
    """Serve until stopped; SIGHUP reloads the configuration, SIGTERM and SIGINT shut down gracefully.

    Exit status: that of the worker that ended the server, 0 after a stop.
    """
    ignore_sighup()
    settings = read_settings(config)
    set_up_logs(settings.log)
    for warning in config_warnings(settings):
        log.warning("config_warning", warning=warning)
    count = workers or settings.listen.worker_count
    if count == 1:
        run(_serve(settings, config))
        return

    def serve_as(worker: Worker) -> int:
        try:
            run(_serve(settings, config, worker))
        except typer.Exit as exc:
            return exc.exit_code
        return 0

    try:
        status = supervise(settings, count, serve_as)
    except ListenError as exc:
        typer.echo(f"mediarepo: {exc}", err=True)
        raise typer.Exit(1) from exc
    raise typer.Exit(status)


async def _serve(settings: Settings, config: Path, worker: Worker | None = None) -> None:
    shutdown, reload = server_signals()
    await serve_until(settings, config, shutdown, reload, worker)
