"""`mediarepo tasks` and `mediarepo audit`: background tasks and the audit log."""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mediarepo.cli.authority import administering, operator
from mediarepo.cli.confirmation import Yes, check_confirmed
from mediarepo.cli.output import AsJson, human_time, print_json, print_table, progress_line
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.model.tasks import Task, TaskState

tasks_cli = typer.Typer(help="List, start, watch and cancel background tasks.", no_args_is_help=True)

_NEWEST = 2**63 - 1
_POLL_S = 1.0

Number = Annotated[int, typer.Argument(help="The task's number.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of results, newest first.")]


@tasks_cli.command("list")
def list_(limit: Limit = 20, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:  # noqa: FBT002 - typer's way
    """List tasks, newest first."""
    run(_list(read_settings(config), limit, as_json=as_json))


async def _list(settings: Settings, limit: int, *, as_json: bool) -> None:
    async with administering(settings) as administration:
        found = await administration.tasks.table.read(homeserver=None, before_id=_NEWEST, limit=limit)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        [one.task_id, one.kind, one.state.value, one.created_by, human_time(one.created_ts), _progress(one)]
        for one in found
    ]
    print_table(["task", "kind", "state", "by", "begun", "progress"], rows)


@tasks_cli.command()
def add(
    kind: Annotated[str, typer.Argument(help="fsck, retention_plan or retention.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="As in policy=NAME or store=NAME.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Yes = False,  # noqa: FBT002 - typer's way
) -> None:
    """Start a task, which a serving process runs."""
    pairs = dict[str, Any]()
    for argument in arguments or ():
        name, equals, value = argument.partition("=")
        if not equals:
            typer.echo(f"{argument}: expected NAME=VALUE", err=True)
            raise typer.Exit(2)
        pairs[name] = value
    if kind == "retention":
        check_confirmed([f"the policy {pairs.get('policy')} is carried out once: what fits it goes"], yes=yes)
    run(_add(read_settings(config), kind, pairs))


async def _add(settings: Settings, kind: str, arguments: dict[str, Any]) -> None:
    async with administering(settings) as administration:
        task = await administration.tasks.add(kind, arguments, created_by=operator(settings).name, homeserver=None)
    typer.echo(f"task {task.task_id}: queued; see `mediarepo tasks watch {task.task_id}`")


@tasks_cli.command()
def watch(number: Number, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Wait until a task ends, and show its result as JSON; exit 0 if it succeeded, 1 if not."""
    run(_watch(read_settings(config), number))


async def _watch(settings: Settings, number: int) -> None:
    async with administering(settings) as administration:
        task = await administration.tasks.get(number)
        async with progress_line(lambda: f"task {number}: {task.state}, {_progress(task)}"):
            while task.finished_ts is None:
                await asyncio.sleep(_POLL_S)
                task = await administration.tasks.get(number)
    print_json(asdict(task))
    if task.state is not TaskState.DONE:
        raise typer.Exit(1)


@tasks_cli.command()
def cancel(number: Number, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Cancel a task at its next step."""
    run(_cancel(read_settings(config), number))


async def _cancel(settings: Settings, number: int) -> None:
    async with administering(settings) as administration:
        task = await administration.tasks.cancel(number, operator(settings).name)
    typer.echo(f"task {number}: {'stopping' if task.finished_ts is None else task.state}")


def audit(
    limit: Limit = 50,
    target: Annotated[str | None, typer.Option(help="Only actions on this target.")] = None,
    by: Annotated[str | None, typer.Option(help="Only actions of this admin.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way
) -> None:
    """Show the audit log of admin actions, newest first."""
    run(_audit(read_settings(config), limit, target, by, as_json=as_json))


async def _audit(settings: Settings, limit: int, target: str | None, by: str | None, *, as_json: bool) -> None:
    async with administering(settings) as administration:
        found = await administration.audit.read(None, limit, target=target, admin=by)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        [human_time(one.created_ts), one.admin, one.action, one.target, one.affected, one.reason or ""] for one in found
    ]
    print_table(["when (UTC)", "who", "what", "to what", "media", "why"], rows)


def _progress(task: Task) -> str:
    if task.error is not None:
        return task.error
    return json.dumps(task.result or task.progress) if task.result or task.progress else ""
