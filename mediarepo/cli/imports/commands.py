"""The commands of `mediarepo import`."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

import typer

from mediarepo.cli.amounts import BwLimit
from mediarepo.cli.imports import reports, runner
from mediarepo.cli.imports.options import (
    EXPECTED,
    STOPPED,
    AcceptMismatch,
    From,
    ImportOptions,
    Imports,
    Jobs,
    Mode,
    OpsLimit,
    Previews,
    Prune,
    Remote,
    Thumbnails,
    open_import,
    say,
)
from mediarepo.cli.output import AsJson, Yes
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run, stop_signal
from mediarepo.telemetry.logs import set_up_logs

imports_cli = typer.Typer(
    help="Migrate from another media repository, which is only read. Exit 0: clean, 1: stopped, 2: some media are "
    "missing, 3: some failed, 4: preflight found problems.",
    no_args_is_help=True,
)
TakeOwnership = Annotated[bool, typer.Option("--take-ownership", help="Copy adopted objects into our own stores.")]
Work = Callable[[Imports], Awaitable[int]]


@imports_cli.callback()
def _source(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="NAME", help="A name under imports in the configuration, or a kind (with --from).")
    ],
) -> None:
    context.obj = source


def _do(options: ImportOptions, work: Work) -> None:
    settings = read_settings(options.config)
    set_up_logs(settings.log)

    async def open_and_work() -> None:
        try:
            async with open_import(options, settings) as imports:
                status = await work(imports)
        except EXPECTED as exc:
            say(exc)
            raise typer.Exit(STOPPED) from exc
        raise typer.Exit(status)

    run(open_and_work())


def _wishes(context: typer.Context, config: ConfigFile, files: list[str] | None) -> ImportOptions:
    return ImportOptions(name=str(context.obj), config=config, files=files)


@imports_cli.command()
def preflight(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    files: From = None,
    mode: Mode = None,
    as_json: AsJson = False,
) -> None:
    """Check everything that an import needs, and report problems."""
    options = replace(_wishes(context, config, files), mode=mode)
    _do(options, lambda imports: runner.preflight(imports, as_json=as_json))


@imports_cli.command()
def plan(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    files: From = None,
    mode: Mode = None,
    remote: Remote = None,
    url_previews: Previews = None,
    accept_mismatch: AcceptMismatch = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do; changes nothing."""
    options = replace(
        _wishes(context, config, files),
        mode=mode,
        remote=remote,
        url_previews=url_previews,
        accept_mismatch=accept_mismatch,
    )
    _do(options, lambda imports: runner.plan(imports, as_json=as_json))


@imports_cli.command("run")
def run_(  # noqa: PLR0917 - typer's way
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    files: From = None,
    mode: Mode = None,
    remote: Remote = None,
    thumbnails: Thumbnails = None,
    url_previews: Previews = None,
    accept_mismatch: AcceptMismatch = False,
    jobs: Jobs = None,
    bwlimit: BwLimit = None,
    ops_limit: OpsLimit = None,
    prune: Prune = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Import new and changed media; after a stop or crash, run again to resume. Asks before it deletes with --prune."""
    options = replace(
        _wishes(context, config, files),
        mode=mode,
        remote=remote,
        thumbnails=thumbnails,
        url_previews=url_previews,
        accept_mismatch=accept_mismatch,
        jobs=jobs,
        bwlimit=bwlimit,
        ops_limit=ops_limit,
        prune=prune,
    )
    _do(options, lambda imports: runner.run_once(imports, yes=yes, as_json=as_json))


@imports_cli.command()
def watch(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    files: From = None,
    jobs: Jobs = None,
    bwlimit: BwLimit = None,
    ops_limit: OpsLimit = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between runs.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Import repeatedly until stopped, so that the last run before the cutover is short."""
    options = replace(_wishes(context, config, files), jobs=jobs, bwlimit=bwlimit, ops_limit=ops_limit)

    async def work(imports: Imports) -> int:
        return await runner.watch(imports, stop_signal(), interval_s=interval, as_json=as_json)

    _do(options, work)


@imports_cli.command()
def status(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show the progress of the import."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(reports.status(settings, str(context.obj), as_json=as_json))


@imports_cli.command()
def report(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    form: Annotated[
        reports.ReportFormat, typer.Option("--format", help="text, jsonl, csv or html.")
    ] = reports.ReportFormat.TEXT,
    output: Annotated[str, typer.Option(help="The file to write; -: standard output.")] = "-",
    everything: Annotated[bool, typer.Option("--all", help="Also list committed rows.")] = False,
) -> None:
    """Report the result for every row of the source, and the reason."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(reports.report(settings, str(context.obj), form=form, output=output, everything=everything))


@imports_cli.command()
def verify(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    files: From = None,
    level: Annotated[str, typer.Option(help="size, etag, server, full, or sample:N%.")] = "size",
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Verify what was committed against the bucket, the source's files, or the hashes."""
    options = replace(_wishes(context, config, files), jobs=jobs)
    _do(options, lambda imports: runner.verify(imports, level=level, as_json=as_json))


@imports_cli.command()
def finalize(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    files: From = None,
    take_ownership: TakeOwnership = False,
    jobs: Jobs = None,
) -> None:
    """Complete the import, and end read-through."""
    options = replace(_wishes(context, config, files), jobs=jobs)
    _do(options, lambda imports: runner.finalize(imports, take_ownership=take_ownership))


@imports_cli.command()
def undo(
    context: typer.Context,
    which: Annotated[str, typer.Argument(metavar="RUN", help="The number of a run, or all.")],
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Yes = False,
) -> None:
    """Undo an import: delete its media and the objects it created; adopted objects stay in place."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(runner.undo(settings, str(context.obj), which, yes=yes))
