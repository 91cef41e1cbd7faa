"""`mediarepo serve`, `migrate`, `check-config`, `sweep`, `fsck`, `claim` and `dev`."""

from pathlib import Path
from typing import Annotated

import structlog
import typer

from mediarepo.app.build_imports_exports import build_audit
from mediarepo.app.build_remote import read_signing_keys
from mediarepo.app.build_services import build_sweeps
from mediarepo.app.foundation import open_foundation
from mediarepo.app.server import serve as serve_until
from mediarepo.app.server import supervise
from mediarepo.app.supervisor import Worker
from mediarepo.cli.fsck import FsckOptions, run_fsck
from mediarepo.cli.output import Yes, check_confirmed
from mediarepo.cli.permissions import name_of_user
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, ignore_sighup, read_settings, run, server_signals
from mediarepo.config.server import parse_address as parse_listen_address
from mediarepo.config.settings import Settings
from mediarepo.config.warnings import config_warnings
from mediarepo.db.sweep import ObjectInventory
from mediarepo.federation.key_files import KeyFileError
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.services.fsck import FsckLevel
from mediarepo.services.recency import explain
from mediarepo.storage.store import Store
from mediarepo.telemetry.logs import set_up_logs
from mediarepo.web.listening import ListenError

log = structlog.get_logger(__name__)

_IN_USE = 6


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


def migrate(
    config: ConfigFile = DEFAULT_CONFIG,
    to: Annotated[str, typer.Option(help='A revision, "head", or "base" to remove every table.')] = "head",
    down: Annotated[bool, typer.Option("--down", help="Downgrade to an older revision.")] = False,
    yes: Yes = False,
) -> None:
    """Upgrade the database schema; a downgrade asks first, and not while servers or imports run (exit 6)."""
    from mediarepo.db.migrations import RevisionError, upgrade  # noqa: PLC0415 - 30 MB that a server never needs

    settings = read_settings(config)
    set_up_logs(settings.log)
    try:
        run(_migrate_down(settings, to, yes=yes) if down else upgrade(settings.database, to))
    except RevisionError as exc:
        typer.echo(f"mediarepo: {exc}", err=True)
        raise typer.Exit(2) from exc
    typer.echo(f"schema {settings.database.db_schema}: at {to}")


async def _migrate_down(settings: Settings, to: str, *, yes: bool) -> None:
    from mediarepo.db.migrations import InUseError, describe, downgrade  # noqa: PLC0415 - as above

    schema = settings.database.db_schema
    now = await describe(settings.database)
    if now.revision is None:
        typer.echo(f"schema {schema}: there are no tables", err=True)
        return
    try:
        now.check_unused()
        check_confirmed(
            [
                f"schema {schema}: from revision {now.revision} back to {to}; everything added since is removed",
                f"schema {schema}: {now.media} media and {now.blobs} objects are recorded; buckets stay unchanged",
            ],
            yes=yes,
        )
        await downgrade(settings.database, to)
    except InUseError as exc:
        typer.echo(f"mediarepo: {exc}", err=True)
        raise typer.Exit(_IN_USE) from exc


def check_config(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Check the configuration file, and show which store is used for what; exit 2 when a signing key cannot be read."""
    settings = read_settings(config)
    try:
        keys = read_signing_keys(settings)
    except KeyFileError as exc:
        typer.echo(f"{config}: homeservers.signing_key_file: {exc}", err=True)
        raise typer.Exit(2) from exc
    for homeserver in settings.homeservers:
        hosts = ", ".join(sorted({homeserver.server_name, *homeserver.hosts}))
        signing = (
            keys[homeserver.server_name][0].key_id
            if homeserver.server_name in keys
            else "none: remote media cannot be fetched"
        )
        typer.echo(f"homeserver {homeserver.server_name}: answers to {hosts}; signing key {signing}")
    for name, store in settings.stores.items():
        typer.echo(f"store {name}: {store.bucket}/{store.prefix} at {store.endpoint_url}, region {store.region}")
    for name, source in settings.imports.items():
        reading = "read-through until it is finalized" if source.read_through else "imported on command"
        typer.echo(f"import {name}: {source.kind}, {reading}")
    warnings = config_warnings(settings)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{config}: usable, with {len(warnings)} warnings" if warnings else f"{config}: good")
    typer.echo("nothing was asked over the network: `mediarepo doctor` checks database, stores and homeservers")


def sweep(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the garbage collection now: delete orphaned objects, abort abandoned multipart uploads."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(_sweep(settings))


async def _sweep(settings: Settings) -> None:
    async with open_foundation(settings) as foundation:
        reports = await build_sweeps(foundation).sweep()
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


def check_address(text: str) -> str:
    """Check an option's address. Raises typer.BadParameter when it cannot be listened on."""
    try:
        parse_listen_address(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return text


def dev(
    data_dir: Annotated[
        Path, typer.Option(envvar="MEDIAREPO_DATA", help="Data folder of the embedded servers.")
    ] = Path("mediarepo-data"),
    listen: Annotated[str, typer.Option(help="Address to listen on.", callback=check_address)] = "127.0.0.1:8000",
) -> None:
    """Run Postgres, S3 and mediarepo for a trial, with nothing else installed."""
    from mediarepo.cli.dev import run_dev  # noqa: PLC0415 - it brings the migrations along

    run(run_dev(data_dir, listen))
