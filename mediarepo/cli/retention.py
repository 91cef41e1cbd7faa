"""`mediarepo retention`: plans, arms and runs retention policies."""

from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.cli.administration import open_administration, operator
from mediarepo.cli.output import (
    AsJson,
    Yes,
    check_confirmed,
    human_bytes,
    human_time,
    print_json,
    print_table,
    progress_line,
)
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.model.retention import RetentionClass, RetentionPlan
from mediarepo.services.retention import RetentionTally
from mediarepo.telemetry.logs import set_up_logs

retention_cli = typer.Typer(help="Plan, run and arm retention policies.", no_args_is_help=True)

Policy = Annotated[str, typer.Argument(help="The policy's name in the configuration.")]


@retention_cli.command("list")
def list_(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the policies, the last plan of each, and which are armed."""
    run(_list(read_settings(config), as_json=as_json))


async def _list(settings: Settings, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
        stored = await administration.retention.stored()
    found = []
    for policy in settings.retention.policies:
        kept = stored.get(policy.name)
        current = kept if kept is not None and kept.fingerprint == policy.fingerprint() else None
        found.append((policy, current))
    if as_json:
        print_json([{**one.model_dump(mode="json"), "stored": kept and asdict(kept)} for one, kept in found])
        return
    rows = [
        [
            one.name,
            one.what.value,
            human_time(kept.planned_ts) if kept else "never in its present form",
            kept.plan.count if kept else "",
            human_bytes(kept.plan.freed_bytes) if kept else "",
            f"by {kept.armed_by}" if kept and kept.armed_by else "no",
        ]
        for one, kept in found
    ]
    print_table(["policy", "of", "planned", "would go", "frees", "armed"], rows)


@retention_cli.command()
def plan(policy: Policy, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Count what a policy would delete now; deletes nothing."""
    run(_carry(read_settings(config), policy, planning=True, as_json=as_json))


@retention_cli.command("run")
def run_(
    policy: Policy,
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Run a policy once, now; needs a plan of the policy as it is."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    run(_confirm(settings, policy, "runs once", yes=yes))
    run(_carry(settings, policy, planning=False, as_json=as_json))


async def _carry(settings: Settings, name: str, *, planning: bool, as_json: bool) -> None:
    tally = RetentionTally()
    async with open_administration(settings) as administration:
        retention = administration.retention
        policy = retention.policy(name)
        async with progress_line(lambda: f"{tally.count} found, {human_bytes(tally.size_bytes)}"):
            if planning:
                found = await retention.plan(policy, tally)
            else:
                found = await retention.run(policy, operator(settings).name, tally)
    if as_json:
        print_json({"policy": name, "removed": not planning, **asdict(found)})
        return
    _tell(name, found, "would go" if planning else "removed")


def _tell(name: str, plan: RetentionPlan, verb: str) -> None:
    size, freed = human_bytes(plan.size_bytes), human_bytes(plan.freed_bytes)
    typer.echo(f"{name}: {plan.count} {verb}, {size} as users see them, {freed} in the bucket")
    if plan.kept_avatars or plan.kept_unknown:
        typer.echo(f"kept: {plan.kept_avatars} avatars, {plan.kept_unknown} that may be avatars")
    for example in plan.examples:
        typer.echo(f"  {example}")
    if plan.count > len(plan.examples) > 0:
        typer.echo(f"  … and {plan.count - len(plan.examples)} more")


@retention_cli.command()
def arm(policy: Policy, config: ConfigFile = DEFAULT_CONFIG, yes: Yes = False) -> None:
    """Let the scheduler run a policy regularly; needs a plan of the policy as it is."""
    run(_confirm(read_settings(config), policy, "will run regularly", yes=yes))
    run(_arm(read_settings(config), policy, armed=True))


@retention_cli.command()
def disarm(policy: Policy, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Stop the scheduler from running a policy."""
    run(_arm(read_settings(config), policy, armed=False))


async def _confirm(settings: Settings, name: str, what: str, *, yes: bool) -> None:
    """Say what the policy's last plan counted, and end the program unless that is wanted."""
    async with open_administration(settings) as administration:
        policy = administration.retention.policy(name)
        stored = (await administration.retention.stored()).get(name)
    if stored is None or stored.fingerprint != policy.fingerprint():
        return  # not planned as it reads, which the command refuses by itself
    plan, into = stored.plan, "into the trash" if policy.what is RetentionClass.LOCAL else "for good"
    check_confirmed(
        [
            f"policy {name} {what}: {policy.what.value} media go {into}",
            f"policy {name}: {plan.count} as planned at {human_time(stored.planned_ts)} UTC, which frees "
            + human_bytes(plan.freed_bytes),
        ],
        yes=yes,
    )


async def _arm(settings: Settings, name: str, *, armed: bool) -> None:
    async with open_administration(settings) as administration:
        retention = administration.retention
        change = retention.arm if armed else retention.disarm
        await change(retention.policy(name), operator(settings).name)
    typer.echo(f"{name}: {'armed' if armed else 'not armed'}")
