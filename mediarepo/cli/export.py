"""`mediarepo export`: media on their way back out."""

from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mediarepo.app.exporting import SynapseTarget, open_files_export, open_synapse_export, read_synapse_config
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.export_report import ExportReport
from mediarepo.cli.running import run
from mediarepo.cli.settings import DEFAULT_CONFIG, ConfigFile, read_settings
from mediarepo.cli.showing import AsJson
from mediarepo.config.settings import Settings
from mediarepo.errors import MatrixError
from mediarepo.exporters.errors import ExportError
from mediarepo.model.exports import ExportSelection, ExportTally
from mediarepo.telemetry.logs import set_up_logs

_JOBS = 8


class _To(StrEnum):
    SYNAPSE = "synapse"
    FILES = "files"


def export(
    to: Annotated[_To, typer.Option(help="Where to: a Synapse that serves media itself, or an archive of files.")],
    synapse_config: Annotated[
        list[Path] | None, typer.Option(help="Synapse's homeserver.yaml, and what else it is started with.")
    ] = None,
    server_name: Annotated[str | None, typer.Option(help="Only media of this server.")] = None,
    user: Annotated[str | None, typer.Option(help="Only uploads of this user, as in @alice:example.org.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only media made since, as in 2026-11-23, or ms since 1970.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A folder, a file named .tar, or - for standard output.")] = None,
    sql: Annotated[Path | None, typer.Option(help="Write statements for Synapse's database into this file.")] = None,
    *,
    since_cutover: Annotated[bool, typer.Option("--since-cutover", help="Only media that were not imported.")] = False,
    remote: Annotated[bool, typer.Option("--remote", help="Also what was fetched from other servers.")] = False,
    into_bucket: Annotated[bool, typer.Option("--into-bucket", help="Write bytes into Synapse's bucket.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="How many objects to read at once.")] = _JOBS,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Give media to a Synapse, or to people.

    Exits with 0 when all went out, 2 when some could not, 3 when some failed and should be tried again, 1 when nothing
    can be done. Running it again goes on.
    """
    try:
        settings = read_settings(config)
    except typer.Exit as exc:
        raise typer.Exit(1) from exc
    set_up_logs(settings.log)
    selection = ExportSelection(
        server_name=server_name,
        user_id=user,
        with_remote=remote,
        since_ts=None if since is None else _parse_ts(since),
        native_only=since_cutover,
    )
    if to is _To.FILES:
        _refuse(synapse_config or sql or into_bucket, "--synapse-config, --sql and --into-bucket need --to synapse")
        _refuse(output is None, "--to files needs --output")
        run(_to_files(settings, selection, output or Path(), jobs=jobs, as_json=as_json))
        return
    _refuse(output is not None, "--output needs --to files")
    _refuse(not synapse_config, "--to synapse needs --synapse-config")
    target = _target(settings, selection, synapse_config or [], into_bucket=into_bucket, sql=sql)
    run(_to_synapse(settings, selection, target, jobs=jobs, as_json=as_json))


def _target(
    settings: Settings, selection: ExportSelection, paths: list[Path], *, into_bucket: bool, sql: Path | None
) -> SynapseTarget:
    try:
        target = SynapseTarget(config=read_synapse_config(paths), into_bucket=into_bucket, sql=sql)
    except ExportError as exc:
        raise _ended(str(exc)) from exc
    theirs = target.config.server_name
    _refuse(selection.server_name not in {None, theirs}, f"that Synapse is {theirs}, not {selection.server_name}")
    known = any(one.server_name == theirs for one in settings.homeservers)
    _refuse(not known, f"that Synapse is {theirs}, which is none of the homeservers here")
    return target


async def _to_synapse(
    settings: Settings, selection: ExportSelection, target: SynapseTarget, *, jobs: int, as_json: bool
) -> None:
    of_server = ExportSelection(**{**asdict(selection), "server_name": target.config.server_name})
    try:
        async with open_foundation(settings) as foundation, open_synapse_export(foundation, target) as exporting:
            report = ExportReport(
                ExportTally(*await exporting.table.count(of_server)), as_json=as_json, errors_only=False
            )
            await report.follow(exporting.run(of_server, jobs=jobs))
    except (ExportError, MatrixError, OSError) as exc:
        raise _stopped(exc) from exc
    report.summarise()
    raise typer.Exit(report.exit_status)


async def _to_files(settings: Settings, selection: ExportSelection, output: Path, *, jobs: int, as_json: bool) -> None:
    to_stdout = output == Path("-")
    try:
        async with open_foundation(settings) as foundation, open_files_export(foundation, output) as exporting:
            tally = ExportTally(*await exporting.table.count(selection))
            report = ExportReport(tally, as_json=as_json, errors_only=to_stdout)
            await report.follow(exporting.run(selection, asdict(selection), jobs=jobs))
    except (ExportError, MatrixError, OSError) as exc:
        raise _stopped(exc) from exc
    report.summarise()
    raise typer.Exit(report.exit_status)


def _parse_ts(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise _ended(f"--since {text}: expected a date, a time or ms since 1970") from exc
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _refuse(condition: object, words: str) -> None:
    if condition:
        raise _ended(words)


def _stopped(exc: Exception) -> typer.Exit:
    cause = "" if exc.__cause__ is None else f" ({exc.__cause__})"
    return _ended(f"{exc}{cause}")


def _ended(words: str) -> typer.Exit:
    typer.echo(f"mediarepo: {words}", err=True)
    return typer.Exit(1)
