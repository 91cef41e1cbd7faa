"""Reads media that are not imported yet from their source, and imports them on the way."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import structlog

from mediarepo.errors import LimitExceededError, MatrixError, UnavailableError
from mediarepo.importers.errors import SourceError
from mediarepo.importers.open_source import OpenSource
from mediarepo.model.concurrency import Admission, SingleFlight, Waiters
from mediarepo.model.import_ledger import ImportReason, ImportSource, ItemState, LedgerEntry, LedgerState, RemoteChoice
from mediarepo.model.import_source import MediaKind, Resolution, ResolutionState, SourceItem, SourceMedia
from mediarepo.model.mxc import Mxc
from mediarepo.services.imports.decision import ImportPolicy, TransferItem
from mediarepo.services.imports.pipeline import ImportPipeline, Progress
from mediarepo.services.imports.run import ImportRunner, ImportRunOptions

log = structlog.get_logger(__name__)

_AT_ONCE = 16
_ATTEMPTS = 3
_MAX_WAITING = 1_000
_PLACE_WAIT_S = 30.0
_WHAT = "wait for media that have not moved in yet"
_TIMEOUT_S = 300
_REMEMBER_S = 1.0
_MAX_REMEMBERED = 10_000
_LOOK_AGAIN_TIMEOUT_S = 5
_COMPARE_WAIT_S = 1.0
_LEAVE_ALONE_S = 10.0
"""For how long a source is not asked about what is here already, after it did not answer."""
_LOOK_WHETHER_ENDED_S = 10.0


@dataclass(slots=True, kw_only=True)
class _Past:
    """One source that is looked through on behalf of clients; `run_id` is None until that has happened once."""

    opened: OpenSource
    policy: ImportPolicy
    kind: str
    holder: str = field(default_factory=lambda: f"read-through {secrets.token_hex(8)}")
    known: ImportSource | None = None
    working: ImportPipeline | None = None
    looked: float = -_LOOK_WHETHER_ENDED_S
    failed: float = -_LEAVE_ALONE_S
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


class ReadThrough:
    """Looks media up in sources with read-through, once for all requests for the same media."""

    def __init__(self, import_runner: ImportRunner, *, on_outcome: Callable[[str], None]) -> None:
        self._importing = import_runner
        self._on_outcome = on_outcome
        self._pasts: list[_Past] = []
        self.flights = SingleFlight[bool]()
        self.places = Admission(_WHAT, places=_AT_ONCE, share=2, max_waiting=_MAX_WAITING, wait_s=_PLACE_WAIT_S)
        self.comparing = Admission(_WHAT, places=_AT_ONCE, share=4, max_waiting=_MAX_WAITING, wait_s=_COMPARE_WAIT_S)
        self.waiters = Waiters(_WHAT, limit=_MAX_WAITING)
        self._nothing: dict[Mxc, float] = {}
        self._unchanged: dict[Mxc, float] = {}

    def add(self, opened: OpenSource, policy: ImportPolicy, kind: str) -> None:
        """Add a source."""
        self._pasts.append(_Past(opened=opened, policy=policy, kind=kind))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.flights.__aexit__(None, None, None)
        for past in self._pasts:
            with suppress(MatrixError):  # what is left is removed by the sweep
                if past.working is not None:
                    await past.working.item_transfer.keys.give_back()
                await self._importing.clear(past.holder)

    async def import_media(self, mxc: Mxc, *, unauthenticated: bool) -> bool:
        """Import these media now; returns whether anything was.

        Raises UnavailableError when the source does not answer in time.
        """
        loop = asyncio.get_running_loop()
        asked = self._asked(mxc, unauthenticated=unauthenticated)
        if not asked or self._nothing.get(mxc, -_REMEMBER_S) > loop.time() - _REMEMBER_S:
            return False
        with self.waiters.enter():
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    found = await self.flights.run(mxc, lambda: self._look(mxc, asked))
            except TimeoutError as exc:
                raise UnavailableError("the media are still being imported", retry_after_s=30) from exc
        if not found:
            _remember(self._nothing, mxc, loop.time())
        return found

    async def refresh_media(self, mxc: Mxc, source_id: int) -> bool:
        """Return whether imported media were changed by the source's present state, such as a quarantine.

        During outages of the source, and when too many ask at once, media are served as they are.
        """
        loop = asyncio.get_running_loop()
        if self._unchanged.get(mxc, -_REMEMBER_S) > loop.time() - _REMEMBER_S:
            return False
        try:
            async with asyncio.timeout(_LOOK_AGAIN_TIMEOUT_S):
                with self.waiters.enter():
                    changed = await self.flights.run(mxc, lambda: self._compare(mxc, source_id))
        except LimitExceededError:
            return False
        except TimeoutError:
            log.warning("import_source_slow", mxc=str(mxc))
            return False
        _remember(self._unchanged, mxc, loop.time())
        return changed

    async def _compare(self, mxc: Mxc, source_id: int) -> bool:
        """Commit what has changed about media; their bytes are not looked for."""
        loop = asyncio.get_running_loop()
        for past in self._pasts:
            if past.failed > loop.time() - _LEAVE_ALONE_S:
                continue
            try:
                working = await self._open(past)
                if working is not None and working.source_id == source_id:
                    return await self._compare_with(past, working, mxc)
            except SourceError as exc:
                past.failed = loop.time()
                log.warning("import_source_unavailable", source=past.opened.source.name, reason=str(exc))
        return False

    async def _compare_with(self, past: _Past, working: ImportPipeline, mxc: Mxc) -> bool:
        async with self.comparing.enter():
            media = await past.opened.source.lookup(mxc.server_name, mxc.media_id)
        if media is None:
            return False
        located = SourceItem(media, Resolution(ResolutionState.MISSING, "not looked for"))
        known = await self._importing.ledger.known(working.source_id, [media.key])
        verdict = working.judge.judge(located, known.get(media.key, LedgerState()))
        if not isinstance(verdict, LedgerEntry) or verdict.state is not ItemState.COMMITTED:
            return False
        await working.commits.commit(working.source_id, working.run_id, [verdict])
        self._on_outcome("changed")
        return True

    def _asked(self, mxc: Mxc, *, unauthenticated: bool) -> Sequence[_Past]:
        """Choose sources: that of the media's own homeserver, or, for users, all: each may hide remote media."""
        own = [past for past in self._pasts if mxc.server_name in past.opened.server_names]
        if own or unauthenticated or mxc.server_name in self._importing.own_server_names:
            return own
        return self._pasts

    async def _look(self, mxc: Mxc, asked: Sequence[_Past]) -> bool:
        async with self.places.enter():
            for past in asked:
                try:
                    if await self._look_into(past, mxc):
                        self._on_outcome("imported")
                        return True
                except SourceError as exc:
                    self._on_outcome("unavailable")
                    log.warning("import_source_unavailable", source=past.opened.source.name, reason=str(exc))
                    if mxc.server_name in past.opened.server_names:
                        raise UnavailableError(
                            "the source of these media does not answer now", retry_after_s=10
                        ) from exc
        self._on_outcome("nothing")
        return False

    async def _look_into(self, past: _Past, mxc: Mxc) -> bool:
        working = await self._open(past)
        if working is None:
            return False
        media = await past.opened.source.lookup(mxc.server_name, mxc.media_id)
        if media is None or (media.kind is MediaKind.REMOTE) is (mxc.server_name in past.opened.server_names):
            return False
        unwanted = media.kind is MediaKind.REMOTE and past.policy.remote is RemoteChoice.NONE
        if unwanted and media.quarantined_by is None:
            return False
        for _ in range(_ATTEMPTS):
            entry = await self._entry(past, working, media)
            if entry is None:
                return False
            if entry.reason in {ImportReason.STORAGE, ImportReason.UNREADABLE}:
                log.error("read_through_failed", mxc=str(mxc), reason=entry.why)
                raise UnavailableError("the media cannot be imported now", retry_after_s=10)
            again = await working.commits.commit(working.source_id, working.run_id, [entry])
            working.item_transfer.forget([entry.content] if entry.content is not None else [])
            if not again:
                break
            await working.item_transfer.keys.give_back()  # the sweep may have claimed them all
        return True

    async def _entry(self, past: _Past, working: ImportPipeline, media: SourceMedia) -> LedgerEntry | None:
        """Bring one row here, as a run would; None when nothing is new about it."""
        located = SourceItem(media, await past.opened.source.locate(media))
        known = await self._importing.ledger.known(working.source_id, [media.key])
        verdict = working.judge.judge(located, known.get(media.key, LedgerState()))
        if isinstance(verdict, TransferItem):
            return await working.carry(verdict)
        return verdict if isinstance(verdict, LedgerEntry) else None

    async def _open(self, past: _Past) -> ImportPipeline | None:
        """Note that the source is looked through; None once it is finalized."""
        loop = asyncio.get_running_loop()
        async with past.opening:
            if past.known is None or loop.time() - past.looked > _LOOK_WHETHER_ENDED_S:
                past.known = await self._importing.runs.source(past.opened.source.name, past.kind)
                past.looked = loop.time()
            if past.known.finalized_ts is not None:
                return None
            if past.working is None or past.working.source_id != past.known.source_id:
                run_id = await self._importing.runs.begin(past.known.source_id, "read-through", {})
                options = ImportRunOptions(policy=past.policy, jobs=_AT_ONCE)
                past.working = self._importing.working(
                    past.opened.source, past.known, run_id, None, options, Progress(), holder=past.holder
                )
            return past.working


def _remember(moments: dict[Mxc, float], mxc: Mxc, now: float) -> None:
    if len(moments) >= _MAX_REMEMBERED:
        moments.clear()
    moments[mxc] = now
