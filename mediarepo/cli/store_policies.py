"""`mediarepo stores policies`, `plan`, `run`, `arm` and `disarm`."""

from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.app.build_store_moves import build_storage_policies
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.administration import name_of_user
from mediarepo.cli.output import AsJson, human_bytes, human_time, print_json, print_table, progress_line
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run, stop_signal
from mediarepo.config.settings import Settings
from mediarepo.model.store_moves import MoveTally
from mediarepo.telemetry.logs import set_up_logs

Policy = Annotated[str, typer.Argument(help="The policy's name in the configuration.")]

_STOPPED, _FAILED = 1, 3


def policies(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the policies that move objects, the last plan of each, and which are armed."""
    run(_policies(read_settings(config), as_json=as_json))


async def _policies(settings: Settings, *, as_json: bool) -> None:
    async with open_foundation(settings) as foundation:
        stored = await build_storage_policies(foundation).stored()
    found = [(policy, stored.get(policy.name)) for policy in settings.storage_moves.policies]
    if as_json:
        print_json([{**one.model_dump(mode="json"), "stored": kept and asdict(kept)} for one, kept in found])
        return
    rows = [
        [
            one.name,
            one.from_store,
            one.to_store,
            human_time(kept.planned_ts) if kept else "never in its present form",
            kept.plan.count if kept else "",
            human_bytes(kept.plan.size_bytes) if kept else "",
            f"by {kept.armed_by}" if kept and kept.armed_by else "no",
        ]
        for one, kept in found
    ]
    print_table(["policy", "from", "to", "planned", "would move", "size", "armed"], rows)


def plan(policy: Policy, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Count what a policy would move now; moves nothing."""
    run(_plan(read_settings(config), policy))


async def _plan(settings: Settings, name: str) -> None:
    tally = MoveTally()
    async with open_foundation(settings) as foundation:
        found = build_storage_policies(foundation)
        await found.plan(found.policy(name), tally)
    typer.echo(f"{name}: {tally.planned} objects would move, {human_bytes(tally.planned_bytes)}")


def run_(policy: Policy, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run a policy once, now; needs a plan of the policy as it is.

    Exit status: 0 everything was moved, 1 stopped before the end, 3 some objects could not be moved.
    """
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(_run(settings, policy))


async def _run(settings: Settings, name: str) -> None:
    tally = MoveTally()
    async with open_foundation(settings) as foundation:
        found, stop = build_storage_policies(foundation), stop_signal()
        policy = found.policy(name)
        async with progress_line(lambda: f"{tally.moved} of {tally.planned} objects moved, {tally.failed} failed"):
            move_id = await found.run(policy, name_of_user(), tally, stop.is_set)
    typer.echo(f"{name}: move {move_id}, {tally.moved} objects moved, {human_bytes(tally.moved_bytes)}")
    for failure in tally.failures:
        typer.echo(f"  stays: {failure}", err=True)
    if tally.failed or tally.stopped:
        raise typer.Exit(_STOPPED if tally.stopped else _FAILED)


def arm(policy: Policy, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Let the scheduler run a policy regularly; needs a plan of the policy as it is."""
    run(_arm(read_settings(config), policy, armed=True))


def disarm(policy: Policy, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Stop the scheduler from running a policy."""
    run(_arm(read_settings(config), policy, armed=False))


async def _arm(settings: Settings, name: str, *, armed: bool) -> None:
    async with open_foundation(settings) as foundation:
        found = build_storage_policies(foundation)
        await found.arm(found.policy(name), name_of_user(), armed=armed)
    typer.echo(f"{name}: {'armed' if armed else 'not armed'}")
