"""`mediarepo export`: exports media to another media repository or to files."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mediarepo.app.build_imports_exports import (
    MatrixMediaRepoTarget,
    SynapseTarget,
    build_audit,
    open_files_export,
    open_matrix_media_repo_export,
    open_synapse_export,
    read_matrix_media_repo_config,
    read_synapse_config,
)
from mediarepo.app.foundation import Foundation, open_foundation
from mediarepo.cli.administration import name_of_user
from mediarepo.cli.output import AsJson, human_bytes, progress_line
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.db.exports import ExportTable
from mediarepo.errors import MatrixError
from mediarepo.exporters.destination import ExportError
from mediarepo.model.exports import ExportOutcome, ExportResult, ExportSelection, ExportTally
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.telemetry.logs import set_up_logs

_EVERY_S = 30
_FAILURES_IN_A_ROW = 20
_INCOMPLETE = (ExportOutcome.MISSING, ExportOutcome.DAMAGED, ExportOutcome.CONFLICT, ExportOutcome.REFUSED)


class ExportReport:
    """Counts export results, and prints those that are not complete; `errors_only` leaves standard output alone."""

    def __init__(self, tally: ExportTally, *, as_json: bool, errors_only: bool) -> None:
        self.tally = tally
        self._as_json, self._to_errors = as_json, errors_only

    @property
    def exit_status(self) -> int:
        """Return 0 when everything was exported, 2 when some media cannot be, 3 when some should be tried again."""
        if self.tally.outcomes[ExportOutcome.FAILED]:
            return 3
        return 2 if any(self.tally.outcomes[outcome] for outcome in _INCOMPLETE) else 0

    async def follow(self, results: AsyncGenerator[ExportResult, None]) -> None:
        """Consume all results. Raises ExportError when too many fail in a row."""
        failures = 0
        async with aclosing(results), self._shown():
            async for result in results:
                self.tally.note(result)
                self._tell(result)
                failures = failures + 1 if result.outcome is ExportOutcome.FAILED else 0
                if failures == _FAILURES_IN_A_ROW:
                    raise ExportError(f"stopped after {failures} failures in a row; run it again to resume")

    def _tell(self, result: ExportResult) -> None:
        if result.outcome not in _INCOMPLETE and result.outcome is not ExportOutcome.FAILED:
            return
        if self._as_json:
            told = {"action": "problem", "mxc": str(result.media.mxc), "outcome": result.outcome, "why": result.words}
            self._write(json.dumps(told))
        else:
            typer.echo(f"{result.media.mxc}: {result.outcome}: {result.words}", err=True)

    def summarise(self) -> None:
        """Print the totals."""
        tally = self.tally
        if self._as_json:
            self._write(json.dumps({"action": "done", **self._figures(), "exit_status": self.exit_status}))
            return
        found = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(tally.outcomes.items()))
        self._write(f"{tally.media} media: {found or 'none'}; {human_bytes(tally.written_bytes)} written")

    def _write(self, line: str) -> None:
        typer.echo(line, err=self._to_errors)

    def _figures(self) -> dict[str, object]:
        tally = self.tally
        return {
            "media": tally.media,
            "total_media": tally.total_media,
            "bytes": tally.bytes,
            "total_bytes": tally.total_bytes,
            "written_bytes": tally.written_bytes,
            **{outcome.value: tally.outcomes[outcome] for outcome in ExportOutcome},
        }

    @asynccontextmanager
    async def _shown(self) -> AsyncIterator[None]:
        """Show how far it has come: a line that moves on terminals, now and then a line of JSON elsewhere."""
        beating = None if sys.stderr.isatty() else asyncio.create_task(self._beat())
        try:
            async with progress_line(self._line):
                yield
        finally:
            if beating is not None:
                beating.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            typer.echo(json.dumps({"action": "progress", **self._figures()}), err=True)

    def _line(self) -> str:
        tally = self.tally
        done = f"{human_bytes(tally.bytes)} of {human_bytes(tally.total_bytes)}"
        return f"{tally.media} of {tally.total_media} media, {done}"


_JOBS = 8


class _Target(StrEnum):
    SYNAPSE = "synapse"
    MATRIX_MEDIA_REPO = "matrix-media-repo"
    FILES = "files"


SynapseConfigs = Annotated[
    list[Path] | None, typer.Option(help="Synapse's homeserver.yaml and the files that override it.")
]
MmrConfig = Annotated[
    Path | None, typer.Option("--matrix-media-repo-config", help="matrix-media-repo's configuration: a file or folder.")
]
MmrBase = Annotated[Path | None, typer.Option("--base", help="The working folder of matrix-media-repo.")]
MmrDatastore = Annotated[
    str | None, typer.Option("--datastore", help="Write everything into its datastore with this id.")
]
ServerName = Annotated[str | None, typer.Option(help="Only media of this server.")]
User = Annotated[str | None, typer.Option(help="Only uploads of this user, as in @alice:example.org.")]
Since = Annotated[str | None, typer.Option(help="Only media created since, as in 2026-11-23, or ms since 1970.")]
Output = Annotated[Path | None, typer.Option(help="A folder, a file named .tar, or - for standard output.")]
Sql = Annotated[Path | None, typer.Option(help="Write the statements for Synapse's database into this file.")]
SinceCutover = Annotated[
    bool, typer.Option("--since-cutover", help="Only media that were not imported, or that changed since.")
]
Remote = Annotated[bool, typer.Option("--remote", help="Also media fetched from other servers.")]
IntoBucket = Annotated[bool, typer.Option("--into-bucket", help="Write bytes into Synapse's bucket.")]
Jobs = Annotated[int, typer.Option(min=1, max=64, help="How many objects to read in parallel.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PeerOptions:
    """What was said of a matrix-media-repo."""

    config: Path | None
    base: Path | None
    datastore: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What was asked for, apart from which media."""

    synapse_configs: list[Path]
    mmr: _PeerOptions
    output: Path | None
    sql: Path | None
    into_bucket: bool
    jobs: int
    as_json: bool


def export(
    to: Annotated[_Target, typer.Option(help="Destination: a Synapse, a matrix-media-repo, or an archive of files.")],
    synapse_config: SynapseConfigs = None,
    server_name: ServerName = None,
    user: User = None,
    since: Since = None,
    output: Output = None,
    sql: Sql = None,
    *,
    matrix_media_repo_config: MmrConfig = None,
    base: MmrBase = None,
    datastore: MmrDatastore = None,
    since_cutover: SinceCutover = False,
    remote: Remote = False,
    into_bucket: IntoBucket = False,
    jobs: Jobs = _JOBS,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Export media to a Synapse, a matrix-media-repo, or an archive of files.

    Exit 0: everything exported, 1: stopped or cannot run, 2: some media cannot be exported, 3: some failed, run again.
    A repeated run resumes.
    """
    selection = ExportSelection(
        server_name=server_name,
        user_id=user,
        with_remote=remote,
        since_ts=None if since is None else _parse_ts(since),
        native_only=since_cutover,
    )
    theirs = _PeerOptions(config=matrix_media_repo_config, base=base, datastore=datastore)
    configs, bucket = synapse_config or [], into_bucket
    options = _Options(
        synapse_configs=configs, mmr=theirs, output=output, sql=sql, into_bucket=bucket, jobs=jobs, as_json=as_json
    )
    run(_export(_read_settings(config), to, selection, options))


def _read_settings(config: Path) -> Settings:
    try:
        settings = read_settings(config)
    except typer.Exit as exc:
        raise typer.Exit(1) from exc
    set_up_logs(settings.log)
    return settings


async def _export(settings: Settings, to: _Target, selection: ExportSelection, options: _Options) -> None:
    _check(to, options)
    try:
        if options.output is not None:
            report = await _to_files(settings, selection, options.output, options)
        elif options.mmr.config is not None:
            report = await _to_matrix_media_repo(settings, selection, options.mmr.config, options)
        else:
            report = await _to_synapse(settings, selection, options)
    except (ExportError, MatrixError, OSError) as exc:
        cause = "" if exc.__cause__ is None else f" ({exc.__cause__})"
        if options.output == Path("-"):
            _let_go_of_output()
        raise _ended(f"{exc}{cause}") from exc
    report.summarise()
    raise typer.Exit(report.exit_status)


def _let_go_of_output() -> None:
    """Keep Python from failing once more at its end, over what it could not write (docs.python.org, on SIGPIPE)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _check(to: _Target, options: _Options) -> None:
    if to is not _Target.SYNAPSE:
        other = options.synapse_configs or options.sql or options.into_bucket
        _refuse(other, "--synapse-config, --sql and --into-bucket need --to synapse")
    if to is not _Target.MATRIX_MEDIA_REPO:
        others = options.mmr.config or options.mmr.base or options.mmr.datastore
        _refuse(others, "--matrix-media-repo-config, --base and --datastore need --to matrix-media-repo")
    _refuse(to is not _Target.FILES and options.output is not None, "--output needs --to files")
    needed = {
        _Target.FILES: (options.output, "--output"),
        _Target.SYNAPSE: (options.synapse_configs, "--synapse-config"),
        _Target.MATRIX_MEDIA_REPO: (options.mmr.config, "--matrix-media-repo-config"),
    }
    value, option = needed[to]
    _refuse(not value, f"--to {to} needs {option}")


async def _to_synapse(settings: Settings, selection: ExportSelection, options: _Options) -> ExportReport:
    synapse = read_synapse_config(options.synapse_configs)
    theirs = synapse.server_name
    _refuse(selection.server_name not in {None, theirs}, f"that Synapse is {theirs}, not {selection.server_name}")
    known = any(one.server_name == theirs for one in settings.homeservers)
    _refuse(not known, f"that Synapse is {theirs}, which is not configured under homeservers")
    target = SynapseTarget(config=synapse, into_bucket=options.into_bucket, sql=options.sql)
    wanted = replace(selection, server_name=theirs)
    async with open_foundation(settings) as foundation, open_synapse_export(foundation, target) as exporting:
        await _record(foundation, exporting.table, wanted, _Target.SYNAPSE)
        tally = ExportTally(*await exporting.table.count(wanted))
        report = ExportReport(tally, as_json=options.as_json, errors_only=False)
        await report.follow(exporting.run(wanted, jobs=options.jobs))
    return report


async def _to_matrix_media_repo(
    settings: Settings, selection: ExportSelection, path: Path, options: _Options
) -> ExportReport:
    config = read_matrix_media_repo_config(path, options.mmr.base)
    theirs, name = config.server_names, selection.server_name
    refused = name is not None and name not in theirs and not selection.with_remote
    _refuse(refused, f"{name} is not one of that matrix-media-repo's homeservers: {', '.join(sorted(theirs))}")
    target = MatrixMediaRepoTarget(config=config, datastore=options.mmr.datastore)
    async with open_foundation(settings) as foundation, open_matrix_media_repo_export(foundation, target) as exporting:
        await _record(foundation, exporting.table, selection, _Target.MATRIX_MEDIA_REPO)
        tally = ExportTally(*await exporting.table.count(selection))
        report = ExportReport(tally, as_json=options.as_json, errors_only=False)
        await report.follow(exporting.run(selection, jobs=options.jobs))
    return report


async def _to_files(settings: Settings, selection: ExportSelection, output: Path, options: _Options) -> ExportReport:
    async with open_foundation(settings) as foundation, open_files_export(foundation, output) as exporting:
        await _record(foundation, exporting.table, selection, _Target.FILES)
        tally = ExportTally(*await exporting.table.count(selection))
        report = ExportReport(tally, as_json=options.as_json, errors_only=output == Path("-"))
        await report.follow(exporting.run(selection, asdict(selection), jobs=options.jobs))
    return report


async def _record(foundation: Foundation, table: ExportTable, selection: ExportSelection, to: _Target) -> None:
    """Write down, before a byte is read, who exports whose media; media of other servers concern all homeservers."""
    counts = await table.count_by_server(selection)
    shared = counts.pop("", 0)
    names = [one.server_name for one in foundation.settings.homeservers]
    concerned = {name: counts.get(name, 0) + shared for name in names if counts.get(name, 0) + shared}
    act = AdminAction(by=name_of_user(), owner=OPERATOR, action="export")
    await build_audit(foundation).add_counts(act, f"to {to}", concerned)


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


def _ended(words: str) -> typer.Exit:
    typer.echo(f"mediarepo: {words}", err=True)
    return typer.Exit(1)
