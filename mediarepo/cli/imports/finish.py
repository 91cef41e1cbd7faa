"""`mediarepo import NAME verify | finalize | undo`."""

import typer

from mediarepo.app.build_transfers import build_importer, build_ownership_transfer, build_undo, build_verifier
from mediarepo.app.foundation import open_foundation
from mediarepo.cli.confirmation import check_confirmed
from mediarepo.cli.imports.options import (
    CLEAN,
    FAILED,
    INCOMPLETE,
    STOPPED,
    Imports,
    UsageError,
    import_action,
    note_action,
    say,
)
from mediarepo.cli.imports.reports import account_of, source_of
from mediarepo.cli.output import human_bytes, print_json, progress_line
from mediarepo.config.settings import Settings
from mediarepo.importers.errors import SourceError
from mediarepo.model.import_ledger import ItemState
from mediarepo.services.imports.run import ImportBusyError
from mediarepo.services.imports.verification import VerifyLevel, VerifyReport, VerifyScope, WrongBucketError


async def verify(imports: Imports, *, level: str, as_json: bool) -> int:
    """Compare what was committed with bucket, files or hashes."""
    try:
        verify_scope = VerifyScope.parse(level)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    findings = VerifyReport()
    verifying = build_verifier(imports.foundation, imports.opened.source, jobs=imports.options.jobs)
    async with progress_line(lambda: f"{findings.checked} objects checked, {len(findings.wrong)} wrong"):
        try:
            await verifying.verify(imports.known, verify_scope, findings)
        except (SourceError, WrongBucketError) as exc:
            say(exc)
            return STOPPED
    _tell(findings, verify_scope, as_json=as_json)
    return INCOMPLETE if findings.wrong else CLEAN


def _tell(findings: VerifyReport, verify_scope: VerifyScope, *, as_json: bool) -> None:
    if as_json:
        wrong = [{"mxc": mxc, "why": why} for mxc, why in findings.wrong]
        figures = {"checked": findings.checked, "only_by_size": findings.shallow, "hashes_learnt": findings.learnt}
        print_json({"level": verify_scope.level, **figures, "wrong": wrong})
        return
    for mxc, why in findings.wrong:
        typer.echo(f"wrong: {mxc}: {why}")
    typer.echo(f"{findings.checked} objects checked by {verify_scope.level}: {len(findings.wrong)} wrong")
    if findings.shallow:
        typer.echo(f"{findings.shallow} of them could only be compared by size")
    if findings.learnt:
        typer.echo(f"{findings.learnt} hashes were learnt")
    if verify_scope.level is VerifyLevel.SAMPLE and findings.checked and not findings.wrong:
        typer.echo(f"with 95 % confidence, at most {findings.bound:.2%} of all are wrong")


async def finalize(imports: Imports, *, take_ownership: bool) -> int:
    """End an import: nothing may have failed, and nothing is looked up at the source from now on."""
    account = await account_of(imports.import_runner, imports.known)
    if account.rows is None:
        say(UsageError("no run has seen all of the source yet: run it once more"))
        return STOPPED
    if account.count(ItemState.FAILED):
        say(UsageError(f"{account.count(ItemState.FAILED)} media failed: see the report, and run again"))
        return FAILED
    if take_ownership:
        owned = await _take_ownership(imports)
        typer.echo(f"{owned[0]} adopted objects are our own now ({human_bytes(owned[1])})")
        if owned[2]:
            say(UsageError(f"{owned[2]} objects could not be taken over, see the log: mend it and run this again"))
            return FAILED
    await note_action(imports, "finalize_import")
    await imports.import_runner.runs.finalize(imports.known.source_id)
    typer.echo(f"{imports.known.name} is finalized: nothing is looked up there any more")
    return CLEAN


async def _take_ownership(imports: Imports) -> tuple[int, int, int]:
    owned = [0, 0]

    def on_owned(size_bytes: int) -> None:
        owned[0] += 1
        owned[1] += size_bytes

    async with (
        imports.import_runner.holding_source(imports.known) as lease,
        progress_line(lambda: f"{owned[0]} objects, {human_bytes(owned[1])} taken over"),
    ):
        owning = build_ownership_transfer(
            imports.foundation,
            imports.import_runner,
            imports.opened.source,
            imports.known,
            lease,
            imports.options,
            on_owned,
        )
        await owning.own_all(imports.known)
    return owned[0], owned[1], owning.failed


async def undo(settings: Settings, name: str, which: str, *, yes: bool) -> None:
    """Take a run, or all, back."""
    if which != "all" and not which.isdecimal():
        typer.echo(f"mediarepo: {which!r} is neither the number of a run nor all", err=True)
        raise typer.Exit(STOPPED)
    async with open_foundation(settings) as foundation:
        import_runner = build_importer(foundation)
        known = await source_of(import_runner, name)
        try:
            async with import_runner.holding_source(known):
                contents, act = build_undo(foundation), import_action(settings, "undo_import")
                count = await contents.count_undoable(known.source_id, None if which == "all" else int(which))
                check_confirmed(_planned_undo(name, which, count), yes=yes)
                removed = await contents.undo(known.source_id, name, None if which == "all" else int(which), act)
        except ImportBusyError as exc:
            say(exc)
            raise typer.Exit(STOPPED) from exc
        await import_runner.outbox.drain()
    typer.echo(f"{removed} media were taken back")


def _planned_undo(name: str, which: str, count: int) -> list[str]:
    what = "everything that was imported" if which == "all" else f"what run {which} imported"
    plan = [f"import {name}: {what} is taken back: {count} media and the objects made for them; adopted objects stay"]
    if which == "all":
        plan.append(f"import {name}: its ledger and the quarantine that came with it go too")
    return plan
