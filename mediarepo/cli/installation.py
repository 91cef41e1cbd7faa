"""`mediarepo migrate`, `check-config` and `dev`; what they need is loaded late, as they are short."""

from pathlib import Path
from typing import Annotated

import typer

from mediarepo.app.signing_keys import read_signing_keys
from mediarepo.cli.output import Yes, check_confirmed
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.server import parse_address as parse_listen_address
from mediarepo.config.settings import Settings
from mediarepo.config.warnings import config_warnings
from mediarepo.federation.key_files import KeyFileError
from mediarepo.telemetry.logs import set_up_logs

_IN_USE = 6
"""Exit status when servers or imports run."""


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
