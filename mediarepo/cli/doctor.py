"""`mediarepo doctor`: checks step by step and names what fails."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.app.build_remote import open_federation
from mediarepo.app.build_services import build_sweeps
from mediarepo.app.foundation import now_ms, open_foundation
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.errors import InvalidParamError, MatrixError, UnavailableError
from mediarepo.federation.doctor import FederationDoctor
from mediarepo.model.mxc import Mxc, parse_mxc, parse_server_name
from mediarepo.sandbox.confinement import Confinement
from mediarepo.sandbox.process import SandboxedProcess, SandboxLimits, SandboxPolicy
from mediarepo.services.recency import explain
from mediarepo.services.stores import NOT_OURS

doctor_cli = typer.Typer(help="Diagnose federation and the sandbox.", no_args_is_help=True)

_NO_SUCH_MEDIA = "mediarepo-doctor"


@doctor_cli.command()
def federation(
    server: Annotated[str, typer.Argument(help="The other server's name, or the mxc:// address of one of its media.")],
    config: ConfigFile = DEFAULT_CONFIG,
    homeserver: Annotated[
        str | None, typer.Option("--as", help="Which of our homeservers sends the requests; default: the first.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object per line.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """Check each step to another server: discovery, TLS, keys, signed download; exit 1 at the step that fails."""
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
    async with open_foundation(settings) as foundation, open_federation(foundation) as federating:
        client = federating.client
        doctor = FederationDoctor(discovery=client.discovery, outbound=client.outbound, client=client, now_ms=now_ms())
        key = federating.keys.get(origin)
        async for hop in doctor.examine(mxc.server_name, mxc.media_id, origin=origin, key=key):
            good = good and (hop.good or hop.name.startswith("connection"))
            typer.echo(
                json.dumps(asdict(hop)) if as_json else f"{'ok ' if hop.good else 'NOT'}  {hop.name}: {hop.detail}"
            )
        last = hop
    if not (good and last.good):
        raise typer.Exit(1)


@doctor_cli.command()
def stores(
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """Look whether each bucket answers, is ours, and is no newer than the database; exit 1 where it is not so."""
    run(_stores(read_settings(config), as_json=as_json))


async def _stores(settings: Settings, *, as_json: bool) -> None:
    wrong: dict[str, str | None] = {}
    async with open_foundation(settings) as foundation:
        markers, recency = build_sweeps(foundation).markers, foundation.recency
        for name, store in foundation.stores.by_name.items():
            try:
                await store.check()
                lost_key = await recency.look(store)
                unclaimed = await markers.owner(store) is None if not store.read_only else False
                ours = unclaimed or await markers.is_ours(store)
            except MatrixError as exc:
                wrong[name] = str(exc)
                continue
            wrong[name] = NOT_OURS if not ours else explain(name, lost_key) if lost_key is not None else None
    for name, reason in wrong.items():
        verdict = reason or "answers, is ours, and the database is as new as it is"
        shown = {"store": name, "good": reason is None, "detail": verdict}
        typer.echo(json.dumps(shown) if as_json else f"{'NOT' if reason else 'ok '}  store {name}: {verdict}")
    if any(wrong.values()):
        raise typer.Exit(1)


@doctor_cli.command()
def sandbox(
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """Start a sandboxed process and show its confinement; exit 1 if `sandbox.enforcement` requires more."""
    settings = read_settings(config)
    run(_sandbox(settings, as_json=as_json))


async def _sandbox(settings: Settings, *, as_json: bool) -> None:
    found: list[Confinement] = []
    policy = SandboxPolicy(enforcement=settings.sandbox.enforcement, on_started=found.append)
    limits = SandboxLimits(memory_bytes=settings.thumbnails.worker_memory_bytes, cpu_limit_s=10, max_jobs=1)
    process = SandboxedProcess("mediarepo.previews.worker", {}, limits=limits, policy=policy)
    try:
        await process.started()
        good = True
    except UnavailableError:
        good = False
    finally:
        await process.end()
    confined = asdict(found[0]) if found else {}
    if as_json:
        typer.echo(json.dumps({"good": good, "enforcement": settings.sandbox.enforcement, **confined}))
    else:
        _show_confinement(confined, good=good, enforcement=settings.sandbox.enforcement)
    if not good:
        raise typer.Exit(1)


def _show_confinement(confined: dict[str, bool], *, good: bool, enforcement: str) -> None:
    if not confined:
        typer.echo("NOT  sandbox: the process did not start")
        return
    for name in ("seccomp", "landlock"):
        verdict = "stands" if confined[name] else "failed" if confined[f"kernel_{name}"] else "this kernel has none"
        typer.echo(f"{'ok ' if confined[name] else 'NOT'}  {name}: {verdict}")
    user = "given up" if os.geteuid() == 0 else "the server's; run it as a user of its own"
    typer.echo(f"ok   user: {user}")
    consequence = "thumbnails and previews are made" if good else "neither thumbnails nor previews are made"
    typer.echo(f"{'ok ' if good else 'NOT'}  sandbox.enforcement {enforcement}: {consequence}")
