"""`mediarepo scan`: what content scanners do, and have done."""

from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.app.build_scanning import build_scanners
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.administration import operator
from mediarepo.cli.output import AsJson, Yes, check_confirmed, human_time, print_json, print_table
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.db.scans import ScanTable
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.scans import ScannerFigures
from mediarepo.telemetry.logs import set_up_logs

scan_cli = typer.Typer(help="Watch content scanners, and have stored content scanned again.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The scanner's name in the configuration.")]


@scan_cli.command()
def status(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show whether each scanner answers, what waits for it, what is held, and its results; exit 1 if one is down."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(_status(settings, as_json=as_json))


async def _status(settings: Settings, *, as_json: bool) -> None:
    found = []
    async with open_foundation(settings) as foundation:
        for scanner in build_scanners(foundation, settings.scanners):
            await scanner.check()
            found.append((scanner, await ScanTable(foundation.database).figures(scanner.name)))
    if as_json:
        print_json(
            [
                {"scanner": one.name, "up": one.is_up, "signatures": one.signatures, **asdict(figures)}
                for one, figures in found
            ]
        )
    else:
        rows = [
            [
                one.name,
                "up" if one.is_up else "down",
                one.config.when,
                figures.waiting,
                figures.held,
                ", ".join(f"{count} {verdict}" for verdict, count in figures.results.items()),
                _round(figures),
                one.signatures or "",
            ]
            for one, figures in found
        ]
        print_table(["scanner", "state", "when", "waiting", "held", "results", "last round", "signatures"], rows)
    if not all(one.is_up for one, _ in found):
        raise typer.Exit(1)


def _round(figures: ScannerFigures) -> str:
    last = figures.last_round
    if last is None:
        return ""
    if last.finished_ts is None:
        return f"since {human_time(last.started_ts)}, after blob {last.after_blob_id}"
    return f"ended {human_time(last.finished_ts)}"


@scan_cli.command()
def rescan(name: Name, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Have all stored content scanned again in the background; exit 2 if there is no such scanner."""
    settings = read_settings(config)
    if name not in settings.scanners:
        typer.echo(f"there is no scanner {name!r} under scanners", err=True)
        raise typer.Exit(2)
    run(_rescan(settings, name))


async def _rescan(settings: Settings, name: str) -> None:
    async with open_foundation(settings) as foundation:
        await ScanTable(foundation.database).forget_results(name, _act(settings, "rescan"))
    typer.echo(f"{name}: all stored content is scanned again; see `mediarepo scan status`")


@scan_cli.command()
def release(name: Name, config: ConfigFile = DEFAULT_CONFIG, yes: Yes = False) -> None:
    """Show all media that wait for a scanner's first verdict; also for one that is not configured any more."""
    check_confirmed([f"everything that waits for the scanner {name} is shown, scanned or not"], yes=yes)
    run(_release(read_settings(config), name))


async def _release(settings: Settings, name: str) -> None:
    async with open_foundation(settings) as foundation:
        released = await ScanTable(foundation.database).release_all(name, _act(settings, "scan_release"))
        await foundation.invalidation.settle()
    typer.echo(f"{name}: {released} media shown")


def _act(settings: Settings, action: str) -> AdminAction:
    return AdminAction(by=operator(settings).name, owner=OPERATOR, action=action)
