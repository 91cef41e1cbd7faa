"""Runs the checks of `mediarepo doctor`, part by part, over one configuration."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path

from mediarepo.app.build_services import build_sweeps
from mediarepo.app.foundation import elapsed_ms, open_foundation
from mediarepo.app.signing_keys import read_signing_keys
from mediarepo.config.loading import ConfigError, load_settings
from mediarepo.config.media import OPTIONAL_FORMATS
from mediarepo.config.settings import Settings
from mediarepo.config.warnings import config_warnings
from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.federation.key_files import KeyFileError
from mediarepo.federation.signing import encode_base64
from mediarepo.homeserver.client import HomeserverClient
from mediarepo.homeserver.doctor import OwnKey, examine_homeserver
from mediarepo.images.worker_pool import WorkerProcess
from mediarepo.model.findings import Finding, Subject, Verdict
from mediarepo.sandbox.confinement import Confinement
from mediarepo.sandbox.process import SandboxedProcess, SandboxLimits, SandboxPolicy
from mediarepo.services.recency import explain
from mediarepo.services.stores import NOT_OURS
from mediarepo.storage.conformance import CONFORMANCE
from mediarepo.storage.doctor import CHECKS, examine_store
from mediarepo.storage.store import Store
from mediarepo.telemetry.logs import OutageLog

_ALWAYS_DECODED = "JPEG, PNG, GIF, WebP, AVIF, BMP, TIFF"
_CONFIG = Subject("configuration")


def examine_configuration(path: Path) -> tuple[Settings | None, list[Finding]]:
    """Read the configuration; the settings are None when it cannot be used."""
    try:
        settings = load_settings(path)
    except ConfigError as exc:
        advice = "correct it; config.yaml of the package shows every setting (`mediarepo examples config.yaml`)"
        return None, [_CONFIG.problem("settings", line, advice) for line in str(exc).splitlines()]
    found = [_CONFIG.ok("settings", f"{path} can be used")]
    found += [_CONFIG.warning(name, words) for name, _, words in _parted(config_warnings(settings))]
    found += _files(settings)
    try:
        read_signing_keys(settings)
    except KeyFileError as exc:
        found.append(_CONFIG.problem("signing_key_file", str(exc), "correct the path, or let this user read the file"))
    return settings, found


def _parted(warnings: list[str]) -> Iterator[tuple[str, str, str]]:
    return (warning.partition(": ") for warning in warnings)


def _files(settings: Settings) -> Iterator[Finding]:
    """Look for files that are named and opened only later."""
    named = {f"stores.{name}.ca_file": store.ca_file for name, store in settings.stores.items()}
    named |= {f"homeservers.{one.server_name}.ca_file": one.ca_file for one in settings.homeservers}
    named["outbound.ca_file"] = settings.outbound.ca_file
    for setting, file_name in named.items():
        if file_name is not None and not os.access(file_name, os.R_OK):
            yield _CONFIG.problem(setting, f"{file_name} cannot be read", "correct the path, or its permissions")


async def examine_stores(
    settings: Settings, names: list[str], *, full: bool = False, with_database: bool = True
) -> AsyncIterator[Finding]:
    """Check stores by their names; with the database, also whether each bucket is ours and no newer than it."""
    checks = (*CHECKS[:-1], *CONFORMANCE, CHECKS[-1]) if full else CHECKS
    answering = []
    for name in names:
        reached = True
        async with aclosing(examine_store(name, settings.stores[name], checks)) as findings:
            async for finding in findings:
                reached = reached and (finding.check, finding.verdict) != ("bucket", Verdict.PROBLEM)
                yield finding
        answering += [name] if reached else []
    if with_database and answering:
        async for finding in _ownership(settings, answering):
            yield finding


async def _ownership(settings: Settings, names: list[str]) -> AsyncIterator[Finding]:
    async with open_foundation(settings) as foundation:
        markers, recency = build_sweeps(foundation).markers, foundation.recency

        async def judge(subject: Subject, store: Store) -> Finding:
            lost_key = await recency.look(store)
            unclaimed = await markers.owner(store) is None if not store.read_only else False
            if not unclaimed and not await markers.is_ours(store):
                return subject.problem("owner", NOT_OURS)
            if lost_key is not None:
                return subject.problem("owner", explain(store.name, lost_key))
            return subject.ok("owner", "is ours, and the database is as new as it is")

        for name in names:
            subject = Subject(f"store {name}")
            try:
                yield await judge(subject, foundation.stores.by_name[name])
            except MatrixError as exc:
                cause = "" if exc.__cause__ is None else f" ({exc.__cause__})"
                yield subject.problem("owner", f"{exc}{cause}", "see the database, or the other checks of this store")


class _SilentOutages(OutageLog):
    """Logs nothing: what is out is a finding."""

    def note(self, kind: str, name: str, reason: str | None) -> None:
        """Leave the log alone."""


async def examine_homeservers(settings: Settings) -> AsyncIterator[Finding]:
    """Check each homeserver."""
    try:
        keys = read_signing_keys(settings)
    except KeyFileError:
        keys = {}  # a finding of the configuration
    async with HomeserverClient(settings.identity, _SilentOutages(now_ms=elapsed_ms)) as calls:
        for homeserver in settings.homeservers:
            own = keys.get(homeserver.server_name)
            key = OwnKey(own[0].key_id, encode_base64(own[0].public_key)) if own else None
            async with aclosing(examine_homeserver(calls, homeserver, key)) as findings:
                async for finding in findings:
                    yield finding


async def examine_scanners(settings: Settings) -> AsyncIterator[Finding]:
    """Check each scanner: whether it answers, and finds the EICAR test file."""
    if not settings.scanners:
        return
    from mediarepo.app.scanner_diagnosis import examine_scanner  # noqa: PLC0415 - only where scanners are configured

    for name, config in settings.scanners.items():
        async for finding in examine_scanner(name, config):
            yield finding


async def confinement(settings: Settings) -> tuple[bool, dict[str, bool]]:
    """Start a sandboxed process; gives whether `sandbox.enforcement` is met, and what stands (nothing: no start)."""
    found: list[Confinement] = []
    policy = SandboxPolicy(enforcement=settings.sandbox.enforcement, on_started=found.append)
    limits = SandboxLimits(memory_bytes=settings.thumbnails.worker_memory_bytes, cpu_limit_s=10, max_jobs=1)
    process = SandboxedProcess("mediarepo.previews.worker", {}, limits=limits, policy=policy)
    try:
        await process.started()
        good = True
    except UnavailableError:
        good = False
    finally:
        await process.end()
    return good, asdict(found[0]) if found else {}


async def examine_sandbox(settings: Settings) -> AsyncIterator[Finding]:
    """Look whether untrusted files are read in confinement."""
    subject = Subject("sandbox")
    good, confined = await confinement(settings)
    standing = [name for name in ("seccomp", "landlock") if confined.get(name)]
    words = ", ".join(standing) or "nothing"
    if not good:
        advice = "use a newer kernel, allow seccomp and Landlock in the container, or lower sandbox.enforcement"
        yield subject.problem("confinement", f"{words} stands: neither thumbnails nor previews are made", advice)
    elif len(standing) < 2:  # noqa: PLR2004 - both of them
        yield subject.warning("confinement", f"only {words} stands", "use a kernel with seccomp and Landlock (5.13)")
    else:
        yield subject.ok("confinement", words)
    if good:
        yield await _decoders(settings, subject)


async def _decoders(settings: Settings, subject: Subject) -> Finding:
    """Start an image worker with all decoders that are switched on, and list them."""
    found = settings.thumbnails.optional_formats
    missing = [one for one in OPTIONAL_FORMATS if getattr(settings.thumbnails, one.setting) and one not in found]
    off = [one.setting for one in OPTIONAL_FORMATS if one.is_installed and one not in found]
    words = ", ".join([_ALWAYS_DECODED, *(one.setting for one in found)])
    words += f"; installed, but off: {', '.join(off)}" if off else ""
    worker = WorkerProcess(settings.thumbnails, SandboxPolicy(enforcement=settings.sandbox.enforcement))
    try:
        await worker.started()
    except UnavailableError:
        return subject.problem("decoders", f"no image worker starts with {words}", "see `mediarepo serve`'s log")
    finally:
        await worker.end()
    if missing:
        extras = ",".join(one.extra or one.setting for one in missing)
        return subject.warning("decoders", words, f"pip install 'matrix-mediarepo[{extras}]', or switch them off")
    return subject.ok("decoders", words)
