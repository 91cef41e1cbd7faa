"""`mediarepo failed-items`: items that background work could not process."""

from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.cli.authority import administering, operator
from mediarepo.cli.output import AsJson, human_time, print_json, print_table
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.model.failed_items import Queue

failed_items_cli = typer.Typer(
    help="List and retry items that background jobs could not process.", no_args_is_help=True
)

InQueue = Annotated[Queue | None, typer.Option("--queue", help="Only items of this queue.")]


@failed_items_cli.command("list")
def list_(
    queue: InQueue = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of items.")] = 100,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way
) -> None:
    """List failed items, most recent failure first; exit 1 if there are any."""
    run(_list(read_settings(config), queue, limit, as_json=as_json))


async def _list(settings: Settings, queue: Queue | None, limit: int, *, as_json: bool) -> None:
    async with administering(settings) as administration:
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
    async with administering(settings) as administration:
        count = await administration.failed_items.retry(operator(settings).name, queue=queue, key=item)
    typer.echo(f"{count} failed items will be tried again")
