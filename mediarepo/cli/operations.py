"""`mediarepo sweep`, `fsck` and `claim`."""

from typing import Annotated

import typer

from mediarepo.app.build_imports_exports import build_audit
from mediarepo.app.build_services import build_sweeps
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.administration import name_of_user
from mediarepo.cli.fsck import FsckOptions, run_fsck
from mediarepo.cli.output import Yes, check_confirmed
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.db.sweep import ObjectInventory
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.services.fsck import FsckLevel
from mediarepo.services.recency import explain
from mediarepo.storage.store import Store
from mediarepo.telemetry.logs import set_up_logs


def sweep(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the garbage collection now: delete orphaned objects, abort abandoned multipart uploads."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(_sweep(settings))


async def _sweep(settings: Settings) -> None:
    async with open_foundation(settings) as foundation:
        reports = await build_sweeps(foundation).sweep()
        for report in reports:
            act = AdminAction(by=name_of_user(), owner=OPERATOR, action="sweep_store", reason=report.stopped)
            await build_audit(foundation).add(act, report.store, report.condemned + report.multiparts)
    for report in reports:
        unknown = f"{report.unknown} unknown objects ({report.condemned} of them unknown long enough to be deleted)"
        outcome = report.stopped or f"{unknown}, {report.multiparts} open multipart uploads"
        typer.echo(f"store {report.store}: {report.listed} old objects, {outcome}")
        if report.unchecked:
            typer.echo(f"store {report.store}: not checked: {report.unchecked}")
    if any(report.stopped for report in reports):
        raise typer.Exit(1)


def fsck(
    config: ConfigFile = DEFAULT_CONFIG,
    store: Annotated[list[str] | None, typer.Option(help="A store's name; default: all stores.")] = None,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Repair the differences.")] = False,
    accept_losses: Annotated[
        bool,
        typer.Option(
            "--accept-losses", help="Accept what is known to be missing: later checks report new losses only."
        ),
    ] = False,
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Repair even if there are many differences.")] = False,
    hashes: Annotated[bool, typer.Option("--hashes", help="Read every object and compare its hash.")] = False,
    after: Annotated[str, typer.Option(help="Resume after this key, as reported by an earlier check.")] = "",
    objects_per_s: Annotated[float, typer.Option(min=0, help="Maximum objects per second; 0: unlimited.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object per line.")] = False,
) -> None:
    """Compare buckets and database in both directions.

    Exit status: 0 all was checked and agrees, 1 differences (known losses too), 2 not repaired, 3 not all was checked,
    4 a store could not be checked, 5 nobody said yes.
    """
    settings = read_settings(config)
    set_up_logs(settings.log)
    if unknown := set(store or ()) - set(settings.stores):
        typer.echo(f"there is no store {min(unknown)!r} under stores", err=True)
        raise typer.Exit(2)
    how = FsckLevel(hashes=hashes, after_key=after, objects_per_s=objects_per_s)
    options = FsckOptions(
        stores=store,
        repair=repair,
        accept_losses=accept_losses,
        yes=yes,
        force=force,
        as_json=as_json,
        how=how,
    )
    run(_fsck(settings, options))


async def _fsck(settings: Settings, options: FsckOptions) -> None:
    raise typer.Exit(await run_fsck(settings, options))


def claim(
    store: Annotated[str, typer.Argument(help="The store's name in the configuration.")],
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Yes = False,
) -> None:
    """Accept a bucket or prefix to which everything was moved on purpose, and restore missing media found there.

    Exit 2 when no store of that name is configured.
    """
    settings = read_settings(config)
    set_up_logs(settings.log)
    if store not in settings.stores:
        typer.echo(f"there is no store {store!r} under stores", err=True)
        raise typer.Exit(2)
    run(_claim(settings, store, yes=yes))


async def _claim(settings: Settings, name: str, *, yes: bool) -> None:
    async with open_foundation(settings) as foundation:
        store, sweeps = foundation.stores.by_name[name], build_sweeps(foundation)
        known = await ObjectInventory(foundation.database).count(name)
        check_confirmed(_planned_claim(store, await sweeps.markers.owner(store), known), yes=yes)
        report = await sweeps.take_over(store)
        act = AdminAction(by=name_of_user(), owner=OPERATOR, action="claim_store")
        await build_audit(foundation).add(act, name, report.found_again)
        lost_key = await foundation.recency.look(store)
    typer.echo(f"store {name}: claimed; {report.found_again} missing objects were restored")
    if lost_key is not None:
        typer.echo(f"store {name}: {explain(name, lost_key)}", err=True)
        raise typer.Exit(1)


def _planned_claim(store: Store, owner: str | None, known: int) -> list[str]:
    whose = "not claimed yet" if owner is None else f"marked by installation {owner}"
    return [
        f"store {store.name}: {store.bucket}/{store.prefix} is {whose}; it becomes this installation's",
        f"store {store.name}: the database knows {known} objects; others there are deleted once they are old enough",
        f"store {store.name}: known objects that are missing there will be marked lost",
    ]
