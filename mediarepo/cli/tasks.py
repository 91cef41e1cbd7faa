"""`mediarepo tasks`, `failed-items`, `usage` and `audit`: background work, usage and the audit log."""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Any

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
from mediarepo.model.tasks import Queue, Task, TaskState
from mediarepo.model.usage import UsageBy, UsageClass, UsageFilter

tasks_cli = typer.Typer(help="List, start, watch and cancel background tasks.", no_args_is_help=True)

_NEWEST = 2**63 - 1
_POLL_S = 1.0

Number = Annotated[int, typer.Argument(help="The task's number.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of results, newest first.")]


@tasks_cli.command("list")
def list_(limit: Limit = 20, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List tasks, newest first."""
    run(_list(read_settings(config), limit, as_json=as_json))


async def _list(settings: Settings, limit: int, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
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
    yes: Yes = False,
) -> None:
    """Start a task, which a serving process runs; exit 2 when an argument is not NAME=VALUE."""
    pairs = dict[str, Any]()
    for argument in arguments or ():
        name, equals, value = argument.partition("=")
        if not equals:
            typer.echo(f"{argument}: expected NAME=VALUE", err=True)
            raise typer.Exit(2)
        pairs[name] = value
    if kind == "retention":
        check_confirmed([f"the policy {pairs.get('policy')} runs once: matching media are deleted"], yes=yes)
    run(_add(read_settings(config), kind, pairs))


async def _add(settings: Settings, kind: str, arguments: dict[str, Any]) -> None:
    async with open_administration(settings) as administration:
        task = await administration.tasks.add(kind, arguments, created_by=operator(settings).name, homeserver=None)
    typer.echo(f"task {task.task_id}: queued; see `mediarepo tasks watch {task.task_id}`")


@tasks_cli.command()
def watch(number: Number, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Wait until a task ends, and show its result as JSON; exit 0 if it succeeded, 1 if not."""
    run(_watch(read_settings(config), number))


async def _watch(settings: Settings, number: int) -> None:
    async with open_administration(settings) as administration:
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
    async with open_administration(settings) as administration:
        task = await administration.tasks.cancel(number, operator(settings).name)
    typer.echo(f"task {number}: {'stopping' if task.finished_ts is None else task.state}")


def audit(
    limit: Limit = 50,
    target: Annotated[str | None, typer.Option(help="Only actions on this target.")] = None,
    by: Annotated[str | None, typer.Option(help="Only actions of this admin.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show the audit log of admin actions, newest first."""
    run(_audit(read_settings(config), limit, target, by, as_json=as_json))


async def _audit(settings: Settings, limit: int, target: str | None, by: str | None, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
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


failed_items_cli = typer.Typer(
    help="List and retry items that background jobs could not process.", no_args_is_help=True
)

InQueue = Annotated[Queue | None, typer.Option("--queue", help="Only items of this queue.")]


@failed_items_cli.command("list")
def list_failed_items(
    queue: InQueue = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of items.")] = 100,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """List failed items, most recent failure first; exit 1 if there are any."""
    run(_list_failed_items(read_settings(config), queue, limit, as_json=as_json))


async def _list_failed_items(settings: Settings, queue: Queue | None, limit: int, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
        found = await administration.failed_items.read(queue=queue, limit=limit)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        rows = [[one.queue, one.item_key, one.attempts, human_time(one.retry_ts), one.error] for one in found]
        print_table(["queue", "item", "attempts", "next attempt (UTC)", "error"], rows)
    if found:
        raise typer.Exit(1)


@failed_items_cli.command()
def retry(
    queue: InQueue = None,
    item: Annotated[str | None, typer.Option(help="Only this item, as shown by `list`.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Retry failed items at the next run of their queue; default: all."""
    run(_retry(read_settings(config), queue, item))


async def _retry(settings: Settings, queue: Queue | None, item: str | None) -> None:
    async with open_administration(settings) as administration:
        count = await administration.failed_items.retry(operator(settings).name, queue=queue, key=item)
    typer.echo(f"{count} failed items will be tried again")


By = Annotated[list[UsageBy] | None, typer.Option(help="Group by this; can be repeated; default: by class.")]


def usage(
    by: By = None,
    only: Annotated[UsageClass | None, typer.Option("--class", help="Only media of this class.")] = None,
    server_name: Annotated[str | None, typer.Option(help="Only media of this server.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Only uploads of this user.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of lines, largest first.")] = 50,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Show storage usage by media, and the totals of each bucket."""
    split = by or [UsageBy.CLASS]
    run(_usage(read_settings(config), split, UsageFilter(only, server_name, user_id), limit, as_json=as_json))


async def _usage(settings: Settings, by: list[UsageBy], only: UsageFilter, limit: int, *, as_json: bool) -> None:
    async with open_administration(settings) as administration:
        media = await administration.usage.of_media(by, only, limit)
        objects = await administration.usage.of_objects()
    if as_json:
        print_json({"usage": [asdict(one) for one in media], "stores": [asdict(one) for one in objects]})
        return
    rows = [[*one.group.values(), one.media_count, one.size_bytes, human_bytes(one.size_bytes)] for one in media]
    print_table([*by, "media", "bytes", ""], rows)
    typer.echo()
    stored = [
        [one.store, one.object_class, one.object_count, one.size_bytes, human_bytes(one.size_bytes)] for one in objects
    ]
    print_table(["store", "objects of", "objects", "bytes", ""], stored)
