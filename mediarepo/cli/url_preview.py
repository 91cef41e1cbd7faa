"""`mediarepo preview`: shows the preview of a web page, and how it was made."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mediarepo.app.build_remote import open_previews
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.output import print_json
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.config.settings import Settings
from mediarepo.errors import MatrixError
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from mediarepo.services.preview_builder import BuildLog
from mediarepo.services.preview_pages import PageError
from mediarepo.services.previews import Previews
from mediarepo.services.upload_parts import MemoryBudget
from mediarepo.telemetry.logs import set_up_logs


@dataclass(frozen=True, slots=True)
class _Workers:
    pool: WorkerPool
    sources: SourceBudget


def preview(
    url: Annotated[str, typer.Argument(help="The URL of the page.")],
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Bypass the cache; only the image is stored.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show what was fetched, and which rule applied.")] = False,
    language: Annotated[str | None, typer.Option(help="Accept-Language, as the user's client would send it.")] = None,
    server_name: Annotated[str | None, typer.Option(help="The homeserver to preview for; default: the first.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Show the preview of a web page, as JSON; exit 1 if there is none, 2 if the homeserver is not configured."""
    settings = read_settings(config)
    set_up_logs(settings.log)
    by_name = {one.server_name: one for one in settings.homeservers}
    if server_name is not None and server_name not in by_name:
        typer.echo(f"there is no homeserver {server_name!r} under homeservers", err=True)
        raise typer.Exit(2)
    homeserver = by_name[server_name] if server_name is not None else settings.homeservers[0]
    run(_preview(settings, homeserver, url, language, fresh=no_cache or explain, explain=explain))


async def _preview(
    settings: Settings, homeserver: HomeserverConfig, url: str, language: str | None, *, fresh: bool, explain: bool
) -> None:
    async with AsyncExitStack() as stack:
        foundation = await stack.enter_async_context(open_foundation(settings))
        pool = await stack.enter_async_context(WorkerPool(settings.thumbnails, foundation.sandbox_policy()))
        workers = _Workers(pool, SourceBudget(settings.thumbnails))
        previews = await open_previews(stack, foundation, MemoryBudget(settings.uploads), workers)
        if not fresh:
            print_json(await previews.get(url, homeserver, accept_language=language))
            return
        steps = BuildLog()
        try:
            answer = await _made(previews, homeserver, url, language, steps, explain=explain)
        except (PageError, MatrixError) as exc:
            _tell(steps, explain=explain)
            typer.echo(f"not previewed: {exc}", err=True)
            raise typer.Exit(1) from exc
        _tell(steps, explain=explain)
        print_json(answer)


async def _made(
    previews: Previews, homeserver: HomeserverConfig, url: str, language: str | None, steps: BuildLog, *, explain: bool
) -> dict[str, Any]:
    made = await previews.making.make(previews.parse(url), homeserver, language=language, steps=steps)
    if not explain:
        return dict(made.values)
    return {name: {"value": value, "from": made.rules.get(name)} for name, value in made.values.items()}


def _tell(steps: BuildLog, *, explain: bool) -> None:
    for words in steps.told if explain else ():
        typer.echo(words, err=True)
