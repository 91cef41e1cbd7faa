"""`mediarepo fsck`: compares buckets and database."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import typer

from mediarepo.app.build_imports_exports import build_audit
from mediarepo.app.build_services import build_repairs
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.administration import name_of_user
from mediarepo.cli.output import check_confirmed
from mediarepo.config.settings import Settings
from mediarepo.db.sweep import ACCEPT_LOSSES
from mediarepo.errors import MatrixError
from mediarepo.model.drift import Drift, DriftKind
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.services.fsck import FsckLevel, FsckProgress, RepairRefusedError, Repairs
from mediarepo.storage.store import Store

_EVERY = 500
DIFFERENCES, NOT_REPAIRED, NOT_ALL_CHECKED, FAILED = 1, 2, 3, 4
"""Exit statuses besides 0: all was checked, and agrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckOptions:
    """Options of `mediarepo fsck`; `stores` None: all."""

    stores: list[str] | None
    repair: bool
    accept_losses: bool
    yes: bool
    force: bool
    as_json: bool
    how: FsckLevel


@dataclass(slots=True)
class Totals:
    """Differences and repairs, over all stores."""

    found: dict[DriftKind, int] = field(default_factory=lambda: dict.fromkeys(DriftKind, 0))
    repaired: int = 0
    left: int = 0
    refused: bool = False
    incomplete: bool = False
    failed: bool = False

    @property
    def status(self) -> int:
        """The exit status, the worst first."""
        if self.failed:
            return FAILED
        if self.refused:
            return NOT_REPAIRED
        if any(self.found.values()):
            return DIFFERENCES
        return NOT_ALL_CHECKED if self.incomplete else 0


async def run_fsck(settings: Settings, options: FsckOptions) -> int:
    """Check, and repair if asked; returns the exit status."""
    totals = Totals()
    async with open_foundation(settings) as foundation:
        repairs = build_repairs(foundation)
        for name in options.stores or list(settings.stores):
            before = totals.repaired
            try:
                await _one(repairs, foundation.stores.by_name[name], options, totals)
            except MatrixError as exc:
                totals.failed = True
                cause = "" if exc.__cause__ is None else f" ({exc.__cause__})"
                typer.echo(f"store {name}: could not be checked: {exc}{cause}", err=True)
            if totals.repaired > before:
                act = AdminAction(by=name_of_user(), owner=OPERATOR, action="repair_store")
                await build_audit(foundation).add(act, name, totals.repaired - before)
            if options.accept_losses:
                await _accept_losses(repairs, foundation.stores.by_name[name])
    return totals.status


async def _accept_losses(repairs: Repairs, store: Store) -> None:
    act = AdminAction(by=name_of_user(), owner=OPERATOR, action=ACCEPT_LOSSES)
    count = await repairs.accept_losses(store, act)
    typer.echo(f"store {store.name}: the loss of {count} objects is accepted; later checks report new losses only")


async def _one(repairs: Repairs, store: Store, options: FsckOptions, totals: Totals) -> None:
    progress = FsckProgress()
    expected = await repairs.fsck.inventory.count(store.name)
    with _shown(store.name, expected, progress) as on_progress:
        async for drift in repairs.fsck.check(store, options.how, progress, on_progress):
            progress.found[drift.kind] += 1
            totals.found[drift.kind] += 1
            _tell(drift, options, action="found")
    totals.incomplete = totals.incomplete or bool(progress.unchecked)
    if options.repair and any(count for kind, count in progress.found.items() if kind is not DriftKind.KNOWN_MISSING):
        await _repair(repairs, store, options, progress, totals)
    older = (await repairs.fsck.recency.problems()).get(store.name)
    _summarise(store.name, progress, options, totals, older)


async def _repair(repairs: Repairs, store: Store, options: FsckOptions, progress: FsckProgress, totals: Totals) -> None:
    def on_repaired(drift: Drift) -> None:
        totals.repaired += 1
        _tell(drift, options, action="repaired")

    try:
        await repairs.check_safe(store, progress, force=options.force)
    except RepairRefusedError as exc:
        totals.refused = True
        typer.echo(f"store {store.name}: not repaired: {exc}", err=True)
        return
    check_confirmed(_planned_repairs(store, progress), yes=options.yes)
    totals.left += await repairs.repair(store, options.how, on_repaired, force=options.force)


def _planned_repairs(store: Store, progress: FsckProgress) -> list[str]:
    """Say what repairing does that cannot be undone."""
    words = {
        DriftKind.OBJECT_WITHOUT_ROW: "{} objects without a row are deleted",
        DriftKind.LOST_ROW: "{} objects that a newer database knew are deleted (only with --force)",
        DriftKind.ROW_WITHOUT_OBJECT: "the media of {} objects that are gone are marked missing",
        DriftKind.SIZE: "{} objects of a wrong size are deleted (adopted ones stay), and their media marked missing",
        DriftKind.HASH: "{} objects with other content are deleted (adopted ones stay), and their media marked missing",
        DriftKind.LEFTOVER_MULTIPART: "{} abandoned multipart uploads are aborted",
    }
    found = progress.found
    return [f"store {store.name}: {text.format(found[kind])}" for kind, text in words.items() if found[kind]]


def _tell(drift: Drift, options: FsckOptions, *, action: str) -> None:
    if options.as_json:
        typer.echo(json.dumps({"action": action, **asdict(drift)}))
    else:
        sizes = f" ({drift.size_in_bucket} bytes, should be {drift.size_in_database})" if drift.kind == "size" else ""
        typer.echo(f"{action} {drift.kind}: {drift.store} {drift.object_key}{sizes}")


def _summarise(name: str, progress: FsckProgress, options: FsckOptions, totals: Totals, older: str | None) -> None:
    if options.as_json:
        figures = {"store": name, "objects": progress.objects, "rows": progress.rows, "last_key": progress.last_key}
        figures |= {"borrowed": progress.borrowed, "unchecked": progress.unchecked, "contents": options.how.hashes}
        ends = {"repaired": totals.repaired, "left": totals.left, "database_older": older}
        typer.echo(json.dumps({"action": "checked", **figures, "found": progress.found, **ends}))
        return
    found = ", ".join(f"{count} {kind}" for kind, count in progress.found.items() if count) or "all agree"
    adopted = f", {progress.borrowed} adopted objects" if progress.borrowed else ""
    contents = "" if options.how.hashes else "; contents were not read (--hashes)"
    typer.echo(f"store {name}: {progress.objects} objects, {progress.rows} rows{adopted}: {found}{contents}")
    for what in progress.unchecked:
        typer.echo(f"store {name}: not checked: {what}")
    if progress.found[DriftKind.KNOWN_MISSING]:
        typer.echo(f"store {name}: known losses are reported until they are accepted: fsck --accept-losses")
    if totals.left:
        typer.echo(
            f"store {name}: {totals.left} unchanged: objects must be unknown for a while before they are deleted"
        )
    if older is not None:
        typer.echo(f"store {name}: {older}", err=True)


@contextmanager
def _shown(name: str, expected: int, progress: FsckProgress) -> Iterator["_Shown"]:
    """Show how far the check has come, on a terminal only."""
    shown = _Shown(name, expected, progress, sys.stderr.isatty())
    try:
        yield shown
    except BaseException:
        typer.echo(f"store {name}: stopped; resume with --after {progress.last_key}", err=True)
        raise
    finally:
        shown.finish()


class _Shown:
    """A line that is written over as the check goes on."""

    def __init__(self, name: str, expected: int, progress: FsckProgress, on_terminal: bool) -> None:
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
