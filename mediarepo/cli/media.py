"""`mediarepo media`: looking at media, deleting, restoring, holding them."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.cli.administering import administering, operator, parse_address
from mediarepo.cli.running import run
from mediarepo.cli.settings import DEFAULT_CONFIG, ConfigFile, read_settings
from mediarepo.config.settings import Settings
from mediarepo.model.mxc import Mxc

media_cli = typer.Typer(help="Look at media, delete, restore and hold them.", no_args_is_help=True)

Address = Annotated[str, typer.Argument(help="As in mxc://example.org/abc.")]
Addresses = Annotated[list[str], typer.Argument(help="As in mxc://example.org/abc.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the log.")]


@media_cli.command()
def info(address: Address, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Tell everything that is known of media, as JSON."""
    run(_info(read_settings(config), parse_address(address)))


async def _info(settings: Settings, mxc: Mxc) -> None:
    async with administering(settings) as administration:
        record = await administration.records.table.get(mxc)
    if record is None:
        raise _unknown(mxc)
    typer.echo(json.dumps({**asdict(record), "mxc": str(record.mxc)}, indent=2))


@media_cli.command()
def delete(addresses: Addresses, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Move media into the trash; exit 1 when some are unknown or under a legal hold."""
    run(_delete(read_settings(config), [parse_address(address) for address in addresses], reason))


async def _delete(settings: Settings, mxcs: list[Mxc], reason: str | None) -> None:
    async with administering(settings) as administration:
        gone = await administration.deletion.delete(mxcs, operator(settings, mxcs[0]), reason=reason)
    for mxc in gone:
        typer.echo(f"{mxc}: in the trash")
    for mxc in sorted(set(mxcs) - set(gone)):
        typer.echo(f"{mxc}: not deleted: unknown, deleted before, or under a legal hold", err=True)
    if len(set(mxcs)) != len(gone):
        raise typer.Exit(1)


@media_cli.command()
def restore(address: Address, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Take media out of the trash."""
    run(_restore(read_settings(config), parse_address(address)))


async def _restore(settings: Settings, mxc: Mxc) -> None:
    async with administering(settings) as administration:
        if not await administration.deletion.restore(mxc, operator(settings, mxc)):
            typer.echo(f"{mxc}: not in the trash", err=True)
            raise typer.Exit(1)
    typer.echo(f"{mxc}: restored")


@media_cli.command()
def hold(address: Address, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Keep media from being deleted by anybody."""
    run(_hold(read_settings(config), parse_address(address), reason, held=True))


@media_cli.command()
def release(address: Address, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """End a legal hold."""
    run(_hold(read_settings(config), parse_address(address), reason, held=False))


async def _hold(settings: Settings, mxc: Mxc, reason: str | None, *, held: bool) -> None:
    async with administering(settings) as administration:
        if not await administration.deletion.hold(mxc, operator(settings, mxc), held=held, reason=reason):
            raise _unknown(mxc)
    typer.echo(f"{mxc}: {'under a legal hold' if held else 'no longer held'}")


def _unknown(mxc: Mxc) -> typer.Exit:
    typer.echo(f"{mxc}: unknown", err=True)
    return typer.Exit(1)
