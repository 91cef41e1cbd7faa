"""`mediarepo stores`: moves media between stores while the servers run."""

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from mediarepo.app.build_store_moves import build_store_moves
from mediarepo.app.foundation import now_ms, open_foundation
from mediarepo.cli import store_policies
from mediarepo.cli.administration import name_of_user
from mediarepo.cli.amounts import BwLimit, UsageError, amount
from mediarepo.cli.output import AsJson, human_bytes, human_time, print_json, print_table, progress_line
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run, stop_signal
from mediarepo.config.settings import Settings
from mediarepo.config.units import unit_help, without_unit
from mediarepo.model.media import StoreClass
from mediarepo.model.store_moves import MoveSelection, MoveTally
from mediarepo.services.store_moves.run import MoveOptions, StoreMoves
from mediarepo.telemetry.logs import set_up_logs

stores_cli = typer.Typer(help="Move media between stores, at once or by policies.", no_args_is_help=True)

_STOPPED, _USAGE, _FAILED = 1, 2, 3
_SHORTEST_GRACE_MS = 600_000


@dataclass(frozen=True, slots=True)
class _Conditions:
    """Which objects are meant."""

    classes: list[StoreClass] | None
    older_than: str | None
    unused_for: str | None
    larger_than: str | None
    server: str | None

    @property
    def any_given(self) -> bool:
        return any((self.classes, self.older_than, self.unused_for, self.larger_than, self.server))

    def selection(self, from_store: str) -> MoveSelection:
        older_ms, unused_ms = _duration("--older-than", self.older_than), _duration("--unused-for", self.unused_for)
        began_ms = now_ms()
        return MoveSelection(
            from_store=from_store,
            classes=tuple(self.classes) if self.classes else None,
            created_before_ts=None if older_ms is None else began_ms - older_ms,
            idle_since_ts=None if unused_ms is None else began_ms - unused_ms,
            larger_than_bytes=_number("--larger-than", "larger_than_bytes", self.larger_than),
            server_name=self.server,
        )


@dataclass(frozen=True, slots=True)
class _Options:
    """What the command line says."""

    from_store: str | None
    to_store: str | None
    conditions: _Conditions
    undo: bool
    move_id: int | None
    dry_run: bool
    as_json: bool

    async def wanted(self, moves: StoreMoves) -> tuple[MoveSelection, str, int | None]:
        """Return what to move where, and which move that undoes.

        Raises UsageError when the options do not fit together.
        """
        if self.undo:
            if self.from_store or self.to_store or self.conditions.any_given:
                raise UsageError("--undo moves back all that a move took: it goes with --move alone")
            undone = await moves.to_undo(self.move_id)
            return MoveSelection(from_store=undone.to_store, of_move=undone.move_id), undone.from_store, undone.move_id
        if self.from_store is None or self.to_store is None:
            raise UsageError("give --from and --to, or --undo with or without --move")
        if self.move_id is not None:
            raise UsageError("--move goes with --undo")
        return self.conditions.selection(self.from_store), self.to_store, None


From = Annotated[str | None, typer.Option("--from", help="The store that objects leave.")]
To = Annotated[str | None, typer.Option("--to", help="The store that takes them.")]
Classes = Annotated[
    list[StoreClass] | None, typer.Option("--class", help="Only objects of this class; may be repeated.")
]
OlderThan = Annotated[str | None, typer.Option(help="Only media stored longer ago, as in 30d.")]
UnusedFor = Annotated[str | None, typer.Option(help="Only media not requested for so long, as in 90d.")]
LargerThan = Annotated[str | None, typer.Option(help='Only larger objects, as in "10 MiB".')]
Server = Annotated[str | None, typer.Option(help="Only media of this server.")]
Jobs = Annotated[int, typer.Option(min=1, max=64, help="How many objects are copied in parallel.")]
Grace = Annotated[str, typer.Option(help="How long old objects stay, for their readers; at least 10m.")]
ServerSide = Annotated[
    bool, typer.Option("--server-side/--streamed", help="Let one S3 server copy by itself, or read and store bytes.")
]
Undo = Annotated[bool, typer.Option("--undo", help="Move back what the last move took, or that of --move.")]
MoveId = Annotated[int | None, typer.Option("--move", help="With --undo: the move's number.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what would be moved.")]


@stores_cli.command()
def move(
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    from_store: From = None,
    to_store: To = None,
    classes: Classes = None,
    older_than: OlderThan = None,
    unused_for: UnusedFor = None,
    larger_than: LargerThan = None,
    server: Server = None,
    bwlimit: BwLimit = None,
    jobs: Jobs = 4,
    grace: Grace = "1d",
    server_side: ServerSide = True,
    undo: Undo = False,
    move_id: MoveId = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Move objects from one store to another while the servers run; the same command again goes on where it stopped.

    Exit status: 0 everything was moved, 1 stopped before the end, 2 usage, 3 some objects could not be moved.
    """
    settings = read_settings(config)
    set_up_logs(settings.log)
    conditions = _Conditions(classes, older_than, unused_for, larger_than, server)
    said = _Options(from_store, to_store, conditions, undo, move_id, dry_run, as_json)
    try:
        limit = amount("--bwlimit", bwlimit)
        how = MoveOptions(jobs=jobs, bytes_per_s=limit, grace_ms=_grace(grace), server_side=server_side)
        run(_move(settings, said, how))
    except UsageError as exc:
        typer.echo(f"mediarepo: {exc}", err=True)
        raise typer.Exit(_USAGE) from exc


async def _move(settings: Settings, said: _Options, how: MoveOptions) -> None:
    tally = MoveTally()
    async with open_foundation(settings) as foundation:
        moves = build_store_moves(foundation)
        selection, to_store, undoes = await said.wanted(moves)
        await moves.check(selection.from_store, to_store)
        if said.dry_run:
            await moves.plan(selection, tally)
            _tell_plan(selection.from_store, to_store, tally, as_json=said.as_json)
            return
        stop = stop_signal()
        async with progress_line(lambda: _progress(tally)):
            move_id = await moves.move(
                selection, to_store, name_of_user(), tally, options=how, undoes=undoes, stopping=stop.is_set
            )
    _tell(move_id, selection.from_store, to_store, tally, as_json=said.as_json)
    for store_class in StoreClass:
        if settings.store_for.store_of(store_class) == selection.from_store and not tally.stopped:
            typer.echo(f"new {store_class} objects still go to store {selection.from_store}: see store_for", err=True)
    if tally.failed or tally.stopped:
        raise typer.Exit(_STOPPED if tally.stopped else _FAILED)


def _progress(tally: MoveTally) -> str:
    done, failed = f"{tally.moved} of {tally.planned} objects moved", f", {tally.failed} failed" if tally.failed else ""
    return f"{done}, {human_bytes(tally.moved_bytes)} of {human_bytes(tally.planned_bytes)}{failed}"


def _tell_plan(from_store: str, to_store: str, tally: MoveTally, *, as_json: bool) -> None:
    if as_json:
        figures = {"objects": tally.planned, "size_bytes": tally.planned_bytes, "adopted": tally.adopted}
        groups = {"classes": tally.by_class, "homeservers": tally.by_homeserver}
        print_json({"from": from_store, "to": to_store, **figures, **groups})
        return
    size, adopted = human_bytes(tally.planned_bytes), f", {tally.adopted} of them adopted" if tally.adopted else ""
    typer.echo(f"store {from_store} to store {to_store}: {tally.planned} objects, {size}{adopted}; nothing was moved")
    for store_class, count in sorted(tally.by_class.items()):
        typer.echo(f"  {store_class}: {count}")
    for server_name, count in sorted(tally.by_homeserver.items()):
        typer.echo(f"  of {server_name}: {count}")


def _tell(move_id: int, from_store: str, to_store: str, tally: MoveTally, *, as_json: bool) -> None:
    if as_json:
        figures = {"planned": tally.planned, "size_bytes": tally.moved_bytes, "outcomes": tally.outcomes}
        failed = {"failed": tally.failed, "failures": tally.failures, "stopped": tally.stopped}
        print_json({"move": move_id, "from": from_store, "to": to_store, **figures, **failed})
        return
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in tally.outcomes.items() if count) or "nothing"
    typer.echo(f"move {move_id}, store {from_store} to store {to_store}: {outcomes}, {human_bytes(tally.moved_bytes)}")
    for failure in tally.failures:
        typer.echo(f"  stays: {failure}", err=True)
    if tally.failed:
        typer.echo(f"{tally.failed} objects could not be moved; they stay where they are", err=True)
    if tally.stopped:
        typer.echo("stopped before the end: the same command goes on", err=True)


@stores_cli.command()
def moves(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the last moves, and how many objects of each could be moved back."""
    run(_moves(read_settings(config), as_json=as_json))


async def _moves(settings: Settings, *, as_json: bool) -> None:
    async with open_foundation(settings) as foundation:
        found = await build_store_moves(foundation).table.moves()
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        [
            one.move_id,
            one.from_store,
            one.to_store,
            human_time(one.started_ts),
            human_time(one.ended_ts),
            one.moved_count,
            human_bytes(one.moved_bytes),
            one.failed,
            one.left_to_undo,
            one.started_by,
        ]
        for one in found
    ]
    print_table(["move", "from", "to", "began", "ended", "objects", "size", "failed", "can go back", "by"], rows)


stores_cli.command()(store_policies.policies)
stores_cli.command()(store_policies.plan)
stores_cli.command("run")(store_policies.run_)
stores_cli.command()(store_policies.arm)
stores_cli.command()(store_policies.disarm)


def _grace(text: str) -> int:
    grace_ms = _duration("--grace", text)
    if grace_ms is None or grace_ms < _SHORTEST_GRACE_MS:
        raise UsageError("--grace: at least 10m, as downloads that have begun need the old objects")
    return grace_ms


def _duration(option: str, text: str | None) -> int | None:
    return _number(option, "duration_ms", text)


def _number(option: str, name: str, text: str | None) -> int | None:
    """Read a duration or a size with its unit, as the configuration does."""
    if text is None:
        return None
    value = without_unit(name, text)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if not isinstance(value, int):
        raise UsageError(f"{option}: {text!r} is not {unit_help(name)}")
    return value
