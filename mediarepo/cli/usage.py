"""`mediarepo usage`: stored bytes by homeserver, user and class."""

from dataclasses import asdict
from typing import Annotated

import typer

from mediarepo.cli.authority import administering
from mediarepo.cli.output import AsJson, human_bytes, print_json, print_table
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.settings import Settings
from mediarepo.model.usage import UsageBy, UsageClass, UsageFilter

By = Annotated[list[UsageBy] | None, typer.Option(help="Group by this; can be repeated; default: by class.")]


def usage(
    by: By = None,
    only: Annotated[UsageClass | None, typer.Option("--class", help="Only media of this class.")] = None,
    server_name: Annotated[str | None, typer.Option(help="Only media of this server.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Only uploads of this user.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of lines, largest first.")] = 50,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Show storage usage by media, and the totals of each bucket."""
    split = by or [UsageBy.CLASS]
    run(_usage(read_settings(config), split, UsageFilter(only, server_name, user_id), limit, as_json=as_json))


async def _usage(settings: Settings, by: list[UsageBy], only: UsageFilter, limit: int, *, as_json: bool) -> None:
    async with administering(settings) as administration:
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
