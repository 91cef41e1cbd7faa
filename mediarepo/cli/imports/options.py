"""The options of an import, from the configuration and the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from mediarepo.app.build_imports_exports import build_audit, build_importer, policy_of
from mediarepo.app.foundation import Foundation, open_foundation
from mediarepo.cli.administration import name_of_user
from mediarepo.cli.amounts import UsageError, amount
from mediarepo.config.homeservers import ImportConfig, SourceKind
from mediarepo.config.settings import Settings
from mediarepo.importers.errors import SourceError
from mediarepo.importers.open_source import OpenSource, open_source
from mediarepo.model.import_ledger import ImportSource, ObjectMode, RemoteChoice
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.services.imports.run import ImportRunner, ImportRunOptions

CLEAN, STOPPED, INCOMPLETE, FAILED, UNUSABLE = 0, 1, 2, 3, 4
"""Exit statuses: nothing amiss; could not run, or not to the end; some media are missing; some failed; preflight."""

From = Annotated[
    list[str] | None,
    typer.Option("--from", help="The source's configuration files, if it has no entry under imports."),
]
Mode = Annotated[ObjectMode | None, typer.Option(help="How to import objects in buckets.")]
Remote = Annotated[RemoteChoice | None, typer.Option(help="Which media of other servers to import.")]
Thumbnails = Annotated[bool | None, typer.Option("--thumbnails/--no-thumbnails", help="Also import thumbnails.")]
Previews = Annotated[
    bool | None, typer.Option("--url-previews/--no-url-previews", help="Also import the images of URL previews.")
]
AcceptMismatch = Annotated[
    bool, typer.Option("--accept-mismatch", help="Import bytes whose length differs from the row.")
]
Jobs = Annotated[int | None, typer.Option(min=1, max=256, help="How many transfers run in parallel.")]
OpsLimit = Annotated[str | None, typer.Option("--ops-limit", help="Maximum files or objects per second, as in 200.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete media here that the source has deleted.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Command line options about one source; None: as configured."""

    name: str
    config: Path
    files: list[str] | None = None
    mode: ObjectMode | None = None
    remote: RemoteChoice | None = None
    thumbnails: bool | None = None
    url_previews: bool | None = None
    accept_mismatch: bool = False
    jobs: int | None = None
    bwlimit: str | None = None
    ops_limit: str | None = None
    prune: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Imports:
    """An open source, and the services that import from it."""

    settings: Settings
    foundation: Foundation
    opened: OpenSource
    import_runner: ImportRunner
    options: ImportRunOptions
    known: ImportSource


@asynccontextmanager
async def open_import(options: ImportOptions, settings: Settings) -> AsyncIterator[Imports]:
    """Open a source, our stores and our tables. Raises UsageError when the name belongs to a source of another kind."""
    config = source_config(options, settings)
    opened = open_source(options.name, config)
    async with open_foundation(settings) as foundation, opened.source:
        import_runner = build_importer(foundation)
        known = await import_runner.runs.source(options.name, config.kind)
        if known.kind != config.kind:
            raise UsageError(f"{options.name} was a source of kind {known.kind} before: choose another name")
        yield Imports(
            settings=settings,
            foundation=foundation,
            opened=opened,
            import_runner=import_runner,
            options=options_of(options, config, opened),
            known=known,
        )


def import_action(settings: Settings, action: str) -> AdminAction:
    """Return the admin action of the command line, for the audit of the homeservers whose media it changes."""
    names = tuple(one.server_name for one in settings.homeservers)
    return AdminAction(by=name_of_user(), owner=OPERATOR, action=action, at=names)


async def note_action(imports: Imports, action: str) -> None:
    """Write an action on a whole source into the audit of the homeservers whose media it has."""
    act = import_action(imports.settings, action)
    names = tuple(sorted(imports.opened.server_names & {*act.at}))
    await build_audit(imports.foundation).add(replace(act, at=names), imports.known.name, 0)


def source_config(options: ImportOptions, settings: Settings) -> ImportConfig:
    """Return the source's section under `imports`, or a new one from its kind and --from, with the options applied."""
    config = settings.imports.get(options.name)
    if config is None or options.files:
        config = _unconfigured(options, config)
    changes = {
        name: value
        for name in ("mode", "remote", "thumbnails", "url_previews", "jobs")
        if (value := getattr(options, name)) is not None
    }
    return config.model_copy(update=changes)


def _unconfigured(options: ImportOptions, config: ImportConfig | None) -> ImportConfig:
    kinds = [kind.value for kind in SourceKind]
    if config is None and options.name not in kinds:
        raise UsageError(f"there is no {options.name!r} under imports, and it is none of {', '.join(kinds)}")
    if not options.files:
        raise UsageError(f"there is no {options.name!r} under imports: add it, or use --from FILE")
    try:
        base = {"kind": options.name} if config is None else config.model_dump()
        return ImportConfig.model_validate({**base, "paths": options.files})
    except ValidationError as exc:
        raise UsageError(str(exc)) from exc


def options_of(options: ImportOptions, config: ImportConfig, opened: OpenSource) -> ImportRunOptions:
    """Return the options of a run."""
    return ImportRunOptions(
        policy=replace(policy_of(config, opened), accept_mismatch=options.accept_mismatch),
        jobs=config.jobs,
        bytes_per_s=amount("--bwlimit", options.bwlimit),
        requests_per_s=amount("--ops-limit", options.ops_limit),
        prune=options.prune,
    )


def say(exc: Exception) -> None:
    """Print an error in one line on standard error."""
    typer.echo(f"mediarepo: {exc}", err=True)


EXPECTED = (SourceError, UsageError)
"""What the operator can mend."""
