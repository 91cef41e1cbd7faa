"""`mediarepo quarantine`: quarantines content and lifts quarantines."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from mediarepo.cli.administration import left_out, open_administration, operator, parse_address
from mediarepo.cli.media import Reason
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.model.marks import SMALLEST_HIDDEN_BYTES, without_short_content

quarantine_cli = typer.Typer(help="Quarantine content, and lift quarantine.", no_args_is_help=True)

_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_MAX_FILE_BYTES = 100 * 1024 * 1024

Targets = Annotated[list[str], typer.Argument(help="mxc:// addresses, or SHA-256 hashes in hexadecimal digits.")]
Lines = Annotated[Path, typer.Argument(help="A file with one SHA-256 hash in hexadecimal digits per line.")]


@quarantine_cli.command()
def add(targets: Targets, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Quarantine media and all media with the same content, for the users of all homeservers."""
    run(_change(read_settings(config), targets, reason, hide=True))


@quarantine_cli.command()
def remove(targets: Targets, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Lift the operator's quarantine of media and of equal content; if there is none, that of homeservers."""
    run(_change(read_settings(config), targets, reason, hide=False))


async def _change(settings: Settings, targets: list[str], reason: str | None, *, hide: bool) -> None:
    hashes = [bytes.fromhex(target) for target in targets if _SHA256.fullmatch(target)]
    addresses = [parse_address(target) for target in targets if not _SHA256.fullmatch(target)]
    async with open_administration(settings) as administration:
        quarantine = administration.quarantine
        for mxc in addresses:
            admin = operator(settings, mxc)
            changing = (
                quarantine.hide(mxc, admin, reason=reason) if hide else quarantine.show(mxc, admin, reason=reason)
            )
            outcome = await changing
            verb = "quarantined" if hide else "no longer quarantined"
            typer.echo(f"{mxc}: {outcome.affected} media {verb}{left_out(outcome)}")
        if hashes:
            admin = operator(settings)
            changed = (
                quarantine.hide_hashes(hashes, admin, reason=reason)
                if hide
                else quarantine.show_hashes(hashes, admin, reason=reason)
            )
            typer.echo(f"{await changed} hashes {'quarantined' if hide else 'no longer quarantined'}")


@quarantine_cli.command()
def user(
    user_id: Annotated[str, typer.Argument(help="As in @alice:example.org.")],
    reason: Reason = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Quarantine everything that a user uploaded."""
    run(_user(read_settings(config), user_id, reason))


async def _user(settings: Settings, user_id: str, reason: str | None) -> None:
    async with open_administration(settings) as administration:
        outcome = await administration.quarantine.hide_user_media(user_id, operator(settings), reason=reason)
    typer.echo(f"{user_id}: {outcome.affected} media quarantined{left_out(outcome)}")


@quarantine_cli.command()
def server(
    server_name: Annotated[str, typer.Argument(help="Another server's name.")],
    reason: Reason = None,
    show: Annotated[bool, typer.Option("--show", help="Lift the quarantine of the server.")] = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Quarantine all media of another server, stored here or not."""
    run(_server(read_settings(config), server_name, reason, show=show))


async def _server(settings: Settings, server_name: str, reason: str | None, *, show: bool) -> None:
    async with open_administration(settings) as administration:
        quarantine, admin = administration.quarantine, operator(settings)
        if show:
            changed = await quarantine.show_server(server_name, admin, reason=reason)
        else:
            changed = await quarantine.hide_server(server_name, admin, reason=reason)
    typer.echo(f"{server_name}: {'not quarantined' if show else 'quarantined'}{'' if changed else ', as before'}")


@quarantine_cli.command("import")
def import_(file: Lines, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Quarantine all hashes in a file, as written by `export`; empty lines and # lines are ignored."""
    run(_import(read_settings(config), _read(file), reason))


async def _import(settings: Settings, hashes: list[bytes], reason: str | None) -> None:
    async with open_administration(settings) as administration:
        chosen = without_short_content(hashes)
        count = await administration.quarantine.hide_hashes(chosen, operator(settings), reason=reason)
    typer.echo(f"{count} hashes quarantined, {len(chosen) - count} were quarantined before")
    if left_out := len(set(hashes)) - len(chosen):
        typer.echo(
            f"{left_out} left out: content below {SMALLEST_HIDDEN_BYTES} bytes is quarantined by its address only"
        )


def _read(file: Path) -> list[bytes]:
    """Read a list of hashes, or end the program at the first line that is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.stat().st_size <= _MAX_FILE_BYTES else None
    except (OSError, UnicodeDecodeError) as exc:
        typer.echo(f"{file} cannot be read: {exc}", err=True)
        raise typer.Exit(2) from exc
    if lines is None:
        typer.echo(f"{file} is larger than {_MAX_FILE_BYTES} bytes", err=True)
        raise typer.Exit(2)
    found: dict[bytes, None] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text and not _SHA256.fullmatch(text):
            typer.echo(f"{file}, line {number}: not a SHA-256 hash; nothing was quarantined", err=True)
            raise typer.Exit(2)
        if text:
            found[bytes.fromhex(text)] = None
    return list(found)


@quarantine_cli.command()
def export(
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Also write who and why, one JSON object per line.")] = False,
) -> None:
    """Write all quarantined hashes, one per line."""
    run(_export(read_settings(config), as_json=as_json))


async def _export(settings: Settings, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
        async for one in administration.quarantine.all_hashes():
            facts = {"quarantined_by": one.quarantined_by, "reason": one.reason, "created_ts": one.created_ts}
            typer.echo(json.dumps({"sha256": one.sha256.hex(), **facts}) if as_json else one.sha256.hex())
