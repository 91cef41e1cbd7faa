"""`mediarepo rebuild`: a database, from what lies in a bucket."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Annotated

import structlog
import typer

from mediarepo.app.build_services import JOURNAL_LEASE, build_rebuilder, journal_lease
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.services.rebuild import RebuildRefusedError, RebuildReport
from mediarepo.telemetry.logs import set_up_logs

log = structlog.get_logger(__name__)

_REFUSED = 2
_ATTEMPTS = 90
_PAUSE_S = 1.0


def rebuild(
    store: Annotated[str, typer.Option("--from-bucket", help="The store that has the journal: the one for uploads.")],
    config: ConfigFile = DEFAULT_CONFIG,
    journal: Annotated[str | None, typer.Option(help="Whose journal, where there are several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object at the end.")] = False,
) -> None:
    """Restore a lost database, or bring an older one up to date, from the bucket.

    Exit 0: everything is there, 1: something is missing, 2: refused. If it is killed or stopped, run it again: it
    resumes.
    """
    settings = read_settings(config)
    set_up_logs(settings.log)
    if store not in settings.stores:
        typer.echo(f"there is no store {store!r} under stores", err=True)
        raise typer.Exit(_REFUSED)
    run(_rebuild(settings, store, journal, as_json=as_json))


async def _rebuild(settings: Settings, name: str, journal: str | None, *, as_json: bool) -> None:
    told = RebuildReport()
    shown = _Shown(told, on_terminal=sys.stderr.isatty() and not as_json)
    async with open_foundation(settings) as foundation:
        for _ in range(_ATTEMPTS):
            async with journal_lease(foundation).acquire(JOURNAL_LEASE) as lease:
                if lease is None:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                rebuilding = build_rebuilder(foundation, lease)
                try:
                    await rebuilding.rebuild(foundation.stores.by_name[name], told, shown, journal=journal)
                except RebuildRefusedError as exc:
                    typer.echo(f"nothing is rebuilt: {exc}", err=True)
                    raise typer.Exit(_REFUSED) from exc
                finally:
                    shown.finish()
                break
        else:
            typer.echo("nothing is rebuilt: another process is using the journal", err=True)
            raise typer.Exit(_REFUSED)
    _tell(told, as_json=as_json)
    if not told.is_whole:
        raise typer.Exit(1)


def _tell(told: RebuildReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(told), "whole": told.is_whole}))
        return
    for one in told.missing:
        typer.echo(f"missing: {one}")
    for part in told.broken_parts:
        typer.echo(f"unreadable: {part}: changes recorded only there are lost")
    typer.echo(
        f"{told.parts_done} of {told.parts} parts of the journal, {told.applied} rows, {told.objects} objects; "
        f"{told.adopted} objects adopted by their metadata, {told.left} left to garbage collection; "
        f"{told.missing_count} media missing"
    )


class _Shown:
    """A line that is written over as the rebuild goes on."""

    def __init__(self, told: RebuildReport, *, on_terminal: bool) -> None:
        self._told, self._on_terminal = told, on_terminal

    def __call__(self) -> None:
        if self._on_terminal:
            told = self._told
            figures = f"part {told.parts_done} of {told.parts}, {told.rows} read, {told.applied} written"
            sys.stderr.write(f"\r\x1b[K{told.step}: {figures}, {told.objects} objects")
            sys.stderr.flush()

    def finish(self) -> None:
        """Leave a clean line."""
        if self._on_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
