"""`mediarepo doctor`: finding out where things get stuck."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.app.federating import open_federating
from mediarepo.app.foundation import now_ms, open_foundation
from mediarepo.cli.running import run
from mediarepo.cli.settings import DEFAULT_CONFIG, ConfigFile, read_settings
from mediarepo.config.settings import Settings
from mediarepo.errors import InvalidParamError
from mediarepo.federation.doctor import Doctor
from mediarepo.model.mxc import Mxc, parse_mxc, parse_server_name

doctor_cli = typer.Typer(help="Find out where things get stuck.", no_args_is_help=True)

_NO_SUCH_MEDIA = "mediarepo-doctor"


@doctor_cli.command()
def federation(
    server: Annotated[str, typer.Argument(help="The other server's name, or the mxc:// address of one of its media.")],
    config: ConfigFile = DEFAULT_CONFIG,
    homeserver: Annotated[
        str | None, typer.Option("--as", help="Which of our homeservers asks; the first when not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """Walk the way to another server: discovery, TLS, keys, signed download; exit 1 at the hop that fails."""
    settings = read_settings(config)
    origin = homeserver or settings.homeservers[0].server_name
    if origin not in {one.server_name for one in settings.homeservers}:
        typer.echo(f"there is no homeserver {origin!r} under homeservers", err=True)
        raise typer.Exit(2)
    try:
        mxc = _address(server)
    except InvalidParamError as exc:
        typer.echo(exc.message, err=True)
        raise typer.Exit(2) from exc
    run(_federation(settings, mxc, origin, as_json=as_json))


def _address(text: str) -> Mxc:
    if text.startswith("mxc://"):
        server_name, _, media_id = text.removeprefix("mxc://").partition("/")
        return parse_mxc(server_name, media_id)
    return Mxc(parse_server_name(text), _NO_SUCH_MEDIA)


async def _federation(settings: Settings, mxc: Mxc, origin: str, *, as_json: bool) -> None:
    good = True
    async with open_foundation(settings) as foundation, open_federating(foundation) as federating:
        client = federating.client
        doctor = Doctor(discovery=client.discovery, outbound=client.outbound, client=client, now_ms=now_ms())
        key = federating.keys.get(origin)
        async for hop in doctor.examine(mxc.server_name, mxc.media_id, origin=origin, key=key):
            good = good and (hop.good or hop.name.startswith("connection"))
            typer.echo(
                json.dumps(asdict(hop)) if as_json else f"{'ok ' if hop.good else 'NOT'}  {hop.name}: {hop.detail}"
            )
        last = hop
    if not (good and last.good):
        raise typer.Exit(1)
