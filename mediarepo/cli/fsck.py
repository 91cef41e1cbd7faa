"""`mediarepo fsck`: compares buckets and database."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import typer

from mediarepo.app.build_services import build_repairs
from mediarepo.app.build_transfers import build_audit
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.authority import name_of_user
from mediarepo.config.settings import Settings
from mediarepo.model.drift import Drift, DriftKind
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.services.fsck import FsckLevel, Progress, RepairRefusedError, Repairs
from mediarepo.storage.store import Store

_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckOptions:
    """What the operator asks for; `stores` None: all."""

    stores: list[str] | None
    repair: bool
    force: bool
    as_json: bool
    how: FsckLevel


@dataclass(slots=True)
class Totals:
    """What was found and mended in all stores."""

    found: dict[DriftKind, int] = field(default_factory=lambda: dict.fromkeys(DriftKind, 0))
    repaired: int = 0
    refused: bool = False


async def run_fsck(settings: Settings, options: FsckOptions) -> int:
    """Check, and repair if asked; gives the exit status: 0 all agrees, 1 something does or did not, 2 not repaired."""
    totals = Totals()
    async with open_foundation(settings) as foundation:
        repairs = build_repairs(foundation)
        for name in options.stores or list(settings.stores):
            before = totals.repaired
            await _one(repairs, foundation.stores.by_name[name], options, totals)
            if totals.repaired > before:
                act = AdminAction(by=name_of_user(), owner=OPERATOR, action="repair_store")
                await build_audit(foundation).add(act, name, totals.repaired - before)
    if totals.refused:
        return 2
    return 1 if any(totals.found.values()) else 0


async def _one(repairs: Repairs, store: Store, options: FsckOptions, totals: Totals) -> None:
    progress = Progress()
    expected = await repairs.fsck.inventory.count(store.name)
    with _shown(store.name, expected, progress) as on_progress:
        async for drift in repairs.fsck.check(store, options.how, progress, on_progress):
            progress.found[drift.kind] += 1
            totals.found[drift.kind] += 1
            _tell(drift, options, action="found")
    if options.repair and any(progress.found.values()):
        await _repair(repairs, store, options, progress, totals)
    _summarise(store.name, progress, options, totals)


async def _repair(repairs: Repairs, store: Store, options: FsckOptions, progress: Progress, totals: Totals) -> None:
    def on_repaired(drift: Drift) -> None:
        totals.repaired += 1
        _tell(drift, options, action="repaired")

    try:
        await repairs.check_safe(store, progress, force=options.force)
    except RepairRefusedError as exc:
        totals.refused = True
        typer.echo(f"store {store.name}: not repaired: {exc}", err=True)
        return
    await repairs.repair(store, options.how, on_repaired)


def _tell(drift: Drift, options: FsckOptions, *, action: str) -> None:
    if options.as_json:
        typer.echo(json.dumps({"action": action, **asdict(drift)}))
    else:
        sizes = f" ({drift.size_in_bucket} bytes, should be {drift.size_in_database})" if drift.kind == "size" else ""
        typer.echo(f"{action} {drift.kind}: {drift.store} {drift.object_key}{sizes}")


def _summarise(name: str, progress: Progress, options: FsckOptions, totals: Totals) -> None:
    if options.as_json:
        figures = {"store": name, "objects": progress.objects, "rows": progress.rows, "last_key": progress.last_key}
        figures |= {"unchecked": progress.unchecked}
        typer.echo(json.dumps({"action": "checked", **figures, "found": progress.found, "repaired": totals.repaired}))
        return
    found = ", ".join(f"{count} {kind}" for kind, count in progress.found.items() if count) or "all agree"
    typer.echo(f"store {name}: {progress.objects} objects, {progress.rows} rows: {found}")
    for what in progress.unchecked:
        typer.echo(f"store {name}: not checked: {what}")


@contextmanager
def _shown(name: str, expected: int, progress: Progress) -> Iterator["_Shown"]:
    """Show how far the check has come, on a terminal only."""
    shown = _Shown(name, expected, progress, sys.stderr.isatty())
    try:
        yield shown
    except BaseException:
        typer.echo(f"store {name}: stopped; go on with --after {progress.last_key}", err=True)
        raise
    finally:
        shown.finish()


class _Shown:
    """A line that is written over as the check goes on."""

    def __init__(self, name: str, expected: int, progress: Progress, on_terminal: bool) -> None:  # noqa: FBT001 - of two values, both named
        self._name, self._expected, self._progress, self._on_terminal = name, expected, progress, on_terminal

    def __call__(self) -> None:
        if self._on_terminal and self._progress.objects % _EVERY == 0:
            share = min(100, 100 * self._progress.rows // max(1, self._expected))
            sys.stderr.write(f"\rstore {self._name}: {self._progress.objects} objects, {share} %")
            sys.stderr.flush()

    def finish(self) -> None:
        """Leave a clean line."""
        if self._on_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
