"""`mediarepo media`: shows, searches, deletes, restores, pins and holds media."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.app.build_admin import Administration
from mediarepo.cli.administration import left_out, open_administration, operator, parse_address
from mediarepo.cli.output import AsJson, Yes, check_confirmed, human_time, print_json, print_table
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.model.media import MediaState
from mediarepo.model.media_admin import Search, SearchOrder
from mediarepo.model.mxc import Mxc

media_cli = typer.Typer(help="Show, search, delete, restore, pin and hold media.", no_args_is_help=True)

Address = Annotated[str, typer.Argument(help="As in mxc://example.org/abc.")]
Addresses = Annotated[list[str], typer.Argument(help="As in mxc://example.org/abc.")]
Reason = Annotated[str | None, typer.Option(help="The reason, for the audit log.")]


@media_cli.command()
def info(address: Address, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Show all metadata of media, as JSON."""
    run(_info(read_settings(config), parse_address(address)))


async def _info(settings: Settings, mxc: Mxc) -> None:
    async with open_administration(settings) as administration:
        record = await administration.records.table.get(mxc, None)
    if record is None:
        raise _unknown(mxc)
    typer.echo(json.dumps({**asdict(record), "mxc": str(record.mxc)}, indent=2))


_AUDIT_ENTRIES = 50


@media_cli.command()
def show(address: Address, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show everything that is known of media: row, object, thumbnails, audit, and what finds it in the log."""
    run(_show(read_settings(config), parse_address(address), as_json=as_json))


async def _show(settings: Settings, mxc: Mxc, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
        record = await administration.records.table.get(mxc, None)
        content = await administration.records.contents.get(mxc)
        audit = await administration.audit.read(None, _AUDIT_ENTRIES, target=str(mxc))
    if record is None and not audit:
        raise _unknown(mxc)
    known: dict[str, object] = {
        "media": None if record is None else {**asdict(record), "mxc": str(mxc)},
        "content": None if content is None else asdict(content),
        "audit": [asdict(entry) for entry in audit],
        "in_the_log": {
            "mxc": str(mxc),
            "object_key": None if content is None else content.object_key,
            "blob_id": None if content is None else content.blob_id,
            "user_id": None if record is None else record.uploaded_by,
        },
    }
    if as_json:
        print_json(known)
    else:
        typer.echo("\n".join(_lines(known)))


def _lines(known: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """Format nested values for people: one line a value, times also in UTC."""
    for name, value in known.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, list):
            yield f"{indent}{name}: {len(value)}"
            for entry in value:
                yield f"{indent}  - " + ", ".join(f"{key} {one}" for key, one in entry.items() if one is not None)
        elif name.endswith("_ts") and isinstance(value, int):
            yield f"{indent}{name}: {value} ({human_time(value)} UTC)"
        else:
            yield f"{indent}{name}: {'-' if value is None else value}"


@media_cli.command()
def delete(
    addresses: Addresses,
    reason: Reason = None,
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Yes = False,
) -> None:
    """Move media into the trash; exit 1 if some are unknown or under a legal hold. More than one asks first."""
    settings, mxcs = read_settings(config), [parse_address(address) for address in addresses]
    if len(set(mxcs)) > 1:
        kept = f"they can be restored for {settings.admin.trash_ms // 3_600_000} h"
        check_confirmed([f"{len(set(mxcs))} media are moved into the trash; {kept}"], yes=yes)
    run(_delete(settings, mxcs, reason))


async def _delete(settings: Settings, mxcs: list[Mxc], reason: str | None) -> None:
    async with open_administration(settings) as administration:
        gone = await administration.deletion.delete(mxcs, operator(settings, mxcs[0]), reason=reason)
    for mxc in gone:
        typer.echo(f"{mxc}: in the trash")
    for mxc in sorted(set(mxcs) - set(gone)):
        typer.echo(f"{mxc}: not deleted: unknown, deleted before, or under a legal hold", err=True)
    if len(set(mxcs)) != len(gone):
        raise typer.Exit(1)


@media_cli.command()
def restore(address: Address, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Restore media from the trash."""
    run(_restore(read_settings(config), parse_address(address)))


async def _restore(settings: Settings, mxc: Mxc) -> None:
    async with open_administration(settings) as administration:
        outcome = await administration.deletion.restore(mxc, operator(settings, mxc))
        if not outcome.affected:
            typer.echo(f"{mxc}: not in the trash", err=True)
            raise typer.Exit(1)
    typer.echo(f"{mxc}: restored")


@media_cli.command()
def hold(address: Address, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Put media under a legal hold, which prevents every deletion."""
    run(_hold(read_settings(config), parse_address(address), reason, held=True))


@media_cli.command()
def release(address: Address, reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """End a legal hold."""
    run(_hold(read_settings(config), parse_address(address), reason, held=False))


async def _hold(settings: Settings, mxc: Mxc, reason: str | None, *, held: bool) -> None:
    async with open_administration(settings) as administration:
        outcome = await administration.deletion.hold(mxc, operator(settings, mxc), held=held, reason=reason)
        if not await _is_known(administration, mxc):
            raise _unknown(mxc)
    if outcome.left_out:
        typer.echo(f"{mxc}: still held by others{left_out(outcome)}")
        return
    typer.echo(f"{mxc}: {'under a legal hold' if held else 'no longer held'}")


@media_cli.command()
def pin(address: Address, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Exempt media from retention and from deletion by date."""
    run(_pin(read_settings(config), parse_address(address), pinned=True))


@media_cli.command()
def unpin(address: Address, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Remove the pin, so that retention applies again."""
    run(_pin(read_settings(config), parse_address(address), pinned=False))


async def _pin(settings: Settings, mxc: Mxc, *, pinned: bool) -> None:
    async with open_administration(settings) as administration:
        outcome = await administration.deletion.pin(mxc, operator(settings, mxc), pinned=pinned)
        if not await _is_known(administration, mxc):
            raise _unknown(mxc)
    if outcome.left_out:
        typer.echo(f"{mxc}: still pinned by others{left_out(outcome)}")
        return
    typer.echo(f"{mxc}: {'pinned' if pinned else 'no longer pinned'}")


@media_cli.command()
def search(
    user_id: Annotated[str | None, typer.Option(help="Only uploads of this user.")] = None,
    server_name: Annotated[str | None, typer.Option(help="Only media of this server.")] = None,
    state: Annotated[MediaState | None, typer.Option(help="Only media in this state.")] = None,
    content_type: Annotated[
        str | None, typer.Option(help="Only media whose type begins with this, as in image/.")
    ] = None,
    min_size_bytes: Annotated[int | None, typer.Option(help="Only media of at least this many bytes.")] = None,
    order_by: Annotated[SearchOrder, typer.Option(help="Sort order, largest value first.")] = SearchOrder.CREATED_TS,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of results.")] = 50,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Search media by their metadata."""
    wanted = Search(
        user_id=user_id,
        server_name=server_name,
        state=state,
        content_type=content_type,
        min_size_bytes=min_size_bytes,
    )
    run(_search(read_settings(config), wanted, order_by, limit, as_json=as_json))


async def _search(settings: Settings, wanted: Search, order: SearchOrder, limit: int, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
        found, _ = await administration.records.searches.find(wanted, order, after=None, limit=limit)
    if as_json:
        print_json([{**asdict(one), "mxc": str(one.mxc)} for one in found])
        return
    rows = [
        [str(one.mxc), one.state.value, one.size_bytes or 0, one.content_type, human_time(one.created_ts)]
        for one in found
    ]
    print_table(["media", "state", "bytes", "type", "made (UTC)"], rows)


async def _is_known(administration: Administration, mxc: Mxc) -> bool:
    return await administration.records.table.get(mxc, None) is not None


def _unknown(mxc: Mxc) -> typer.Exit:
    typer.echo(f"{mxc}: unknown", err=True)
    return typer.Exit(1)
