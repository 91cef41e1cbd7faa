"""Rebuilds a database from a bucket: its journal first, then objects that the journal does not have yet."""

import json
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from mediarepo.db.publishing import PublishTable
from mediarepo.db.rebuild import RebuildTable
from mediarepo.db.sweep import SweepTable, UploadIntents
from mediarepo.errors import InvalidParamError, UnavailableError
from mediarepo.model.drift import Drift, DriftKind
from mediarepo.model.ids import object_key_ts
from mediarepo.model.journal import FORMAT, JournalPart, JournalRow, PartKind, journal_folder
from mediarepo.model.media import NewMedia, NewObject, StoreClass
from mediarepo.model.mxc import parse_mxc
from mediarepo.services.fsck import Fsck, FsckLevel, FsckProgress
from mediarepo.services.journal import parts_of
from mediarepo.services.quarantine import HashingSink
from mediarepo.services.stores import BucketMarkers, Stores
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

_PAGE = 2000
_REMOTE_MARGIN_MS = 600_000


class RebuildRefusedError(Exception):
    """Nothing can be rebuilt; the message says why."""


class _BrokenPartError(Exception):
    """A part of the journal cannot be read to its end."""


@dataclass(slots=True)
class RebuildReport:
    """Progress of a rebuild, and what it could not restore."""

    step: str = "looking for the journal"
    parts: int = 0
    parts_done: int = 0
    rows: int = 0
    applied: int = 0
    objects: int = 0
    adopted: int = 0
    left: int = 0
    missing: list[str] = field(default_factory=list)
    missing_count: int = 0
    broken_parts: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything was restored."""
        return not self.missing_count and not self.broken_parts

    def note_missing(self, what: str) -> None:
        """Record something missing; the first thousand by name."""
        self.missing_count += 1
        if len(self.missing) < 1000:  # noqa: PLR2004 - enough to look at
            self.missing.append(what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilder:
    """Restores a lost database, or brings an older one up to date."""

    table: RebuildTable
    publishing: PublishTable
    intents: UploadIntents
    sweep_table: SweepTable
    markers: BucketMarkers
    fsck: Fsck
    stores: Stores

    async def rebuild(
        self, store: Store, told: RebuildReport, on_progress: Callable[[], None], *, journal: str | None = None
    ) -> None:
        """Rebuild from the journal in a store, and from the objects of all stores; yields its progress."""
        installation_id = await self._become(store, journal)
        written_ts, sequence, whole = 0, 0, False
        parts = await self._parts(store, installation_id, told)
        told.step, done = "reading the journal", await self.table.parts_done()
        for part in parts:
            if part.object_key not in done and not await self._gather(store, part, told, on_progress):
                continue
            told.parts_done += 1
            whole = whole or part.kind is PartKind.SNAPSHOT
            written_ts, sequence = max(written_ts, part.written_ts), max(sequence, part.sequence)
        told.step = "writing rows"
        if whole and installation_id == str(await self.sweep_table.installation_id()):
            await self.table.note_absent()
        async for count in self.table.apply(written_ts):
            told.applied += count
            on_progress()
        told.step = "comparing with objects"
        for one in self.stores.by_name.values():
            if not one.read_only:
                await self._compare(one, written_ts, told, on_progress)
        ours = installation_id == str(await self.sweep_table.installation_id())
        await self.table.finish(sequence if ours else 0)
        for one in self.stores.by_name.values():
            await self.fsck.recency.look(one)

    async def _become(self, store: Store, wanted: str | None) -> str:
        """Be the installation whose bucket it is, if the database is empty; gives the one whose journal is read."""
        ours, owner = str(await self.sweep_table.installation_id()), await self.markers.owner(store)
        journals = await _installations(store)
        if owner is None and not journals:
            raise RebuildRefusedError("there is neither a marker nor a journal: is this the right bucket and prefix?")
        if wanted is None:
            likely = {owner} & journals or {ours} & journals or journals or {owner}
            if len(likely) > 1:
                raise RebuildRefusedError(
                    f"there are several journals; choose with --journal: {', '.join(sorted(map(str, likely)))}"
                )
            wanted = str(next(iter(likely)))
            others = journals - {wanted}
            if others and await self.table.is_empty() and wanted == ours:
                raise RebuildRefusedError(
                    "the database is empty and has claimed a bucket with other journals; choose with --journal: "
                    + ", ".join(sorted(others))
                )
        if await self.table.is_empty():
            await self.table.become(UUID(wanted))
            if owner != wanted:
                await self.markers.mark(store)
        elif owner is not None and owner != ours:
            raise RebuildRefusedError(
                f"the bucket is installation {owner}'s, the database is {ours}, and not empty: one of them is wrong"
            )
        return wanted

    async def _parts(self, store: Store, installation_id: str, told: RebuildReport) -> list[JournalPart]:
        """Choose the newest whole copy that can be read, and what came after it, in order."""
        snapshots = sorted([part async for part in parts_of(store, installation_id, PartKind.SNAPSHOT)])
        chosen: list[JournalPart] = []
        while snapshots:
            newest = snapshots.pop()
            if await self._is_whole(store, newest):
                chosen = [newest]
                break
            told.broken_parts.append(newest.object_key)
        after = chosen[0].sequence if chosen else None
        chosen += [part async for part in parts_of(store, installation_id, PartKind.SEGMENT, after)]
        told.parts = len(chosen)
        return chosen

    @staticmethod
    async def _is_whole(store: Store, part: JournalPart) -> bool:
        try:
            async for _ in _rows_of(store, part):
                pass
        except _BrokenPartError as exc:
            log.warning("journal_part_broken", object_key=part.object_key, reason=str(exc))
            return False
        return True

    async def _gather(
        self, store: Store, part: JournalPart, told: RebuildReport, on_progress: Callable[[], None]
    ) -> bool:
        """Gather the rows of a part; one that is broken is told, and what can be read of it counts."""
        page: list[JournalRow] = []
        try:
            async for row in _rows_of(store, part):
                page.append(row)
                if len(page) == _PAGE:
                    await self.table.gather(page, part.sequence)
                    told.rows += len(page)
                    page = []
                    on_progress()
        except _BrokenPartError as exc:
            log.warning("journal_part_broken", object_key=part.object_key, reason=str(exc))
            told.broken_parts.append(part.object_key)
            await self.table.gather(page, part.sequence)
            return False
        await self.table.gather(page, part.sequence)
        told.rows += len(page)
        await self.table.note_part(part.object_key)
        on_progress()
        return True

    async def _compare(
        self, store: Store, written_ts: int, told: RebuildReport, on_progress: Callable[[], None]
    ) -> None:
        """Walk through objects and rows: those without a row become media, rows without one are told."""
        progress, before = FsckProgress(), told.objects

        def go_on() -> None:
            told.objects = before + progress.objects
            on_progress()

        async for drift in self.fsck.check(store, FsckLevel(), progress, go_on):
            if drift.kind in {DriftKind.LOST_ROW, DriftKind.OBJECT_WITHOUT_ROW}:
                await self._adopt_or_leave(store, drift, written_ts, told)
            elif drift.kind in {DriftKind.ROW_WITHOUT_OBJECT, DriftKind.SIZE, DriftKind.KNOWN_MISSING}:
                for mxc in await self.table.media_of(store.name, drift.object_key):
                    told.note_missing(f"{mxc}: {drift.kind} {drift.store} {drift.object_key}")
        go_on()

    async def _adopt_or_leave(self, store: Store, drift: Drift, written_ts: int, told: RebuildReport) -> None:
        """Make media of an object that the journal does not know yet; else it is left over, and goes in a while."""
        media = await self._media_of(store, drift.object_key, written_ts)
        if media is None:
            if drift.kind is DriftKind.LOST_ROW:
                await self.intents.begin(store.name, drift.object_key)
            told.left += 1
            return
        hashing = HashingSink()
        async with store.open(drift.object_key) as stored:
            await stored.send_to(hashing)
        await self.table.forget_pending(media.mxc)
        await self.publishing.adopt(
            media,
            NewObject(
                store=store.name,
                object_key=drift.object_key,
                key_ts=object_key_ts(drift.object_key) or 0,
                size_bytes=drift.size_in_bucket or 0,
                sha256=hashing.sha256.digest(),
            ),
        )
        told.adopted += 1
        log.info("object_adopted", store=store.name, object_key=drift.object_key, mxc=str(media.mxc))

    async def _media_of(self, store: Store, object_key: str, written_ts: int) -> NewMedia | None:
        """Read of which media an object says that it is the content; None when that is over, or nobody's."""
        said = await store.metadata_of(object_key) or {}
        store_class = object_key.removeprefix(f"{store.prefix}/").partition("/")[0]
        if "mxc" not in said or "content_type" not in said or store_class == StoreClass.THUMBNAILS:
            return None
        remote = store_class == StoreClass.REMOTE
        if remote and (object_key_ts(object_key) or 0) < written_ts - _REMOTE_MARGIN_MS:
            return None
        server_name, _, media_id = said["mxc"].removeprefix("mxc://").partition("/")
        try:
            mxc = parse_mxc(server_name, media_id)
        except InvalidParamError:
            return None
        if await self.table.is_known(mxc):
            return None
        created = said.get("created_ts", "")
        return NewMedia(
            mxc=mxc,
            content_type=said["content_type"],
            upload_name=said.get("upload_name"),
            uploaded_by=said.get("uploaded_by"),
            authenticated=said.get("authenticated") != "false",
            remote=remote,
            created_ts=int(created) if created.isdecimal() and int(created) else object_key_ts(object_key),
        )


async def _installations(store: Store) -> set[str]:
    folder = journal_folder(store.prefix)
    return {found.removeprefix(folder).rstrip("/") async for found in store.list_prefixes(folder)}


async def _rows_of(store: Store, part: JournalPart) -> AsyncIterator[JournalRow]:
    """Read the rows of a part, line by line."""
    lines, rows, ended = _lines_of(store, part), 0, False
    async for line in lines:
        try:
            said = json.loads(line)
        except ValueError as exc:
            raise _BrokenPartError("there is a line that is no JSON") from exc
        if "format" in said:
            if said["format"] != FORMAT:
                raise UnavailableError(f"{part.object_key} has format {said['format']}: a newer mediarepo wrote it")
        elif said.get("end"):
            ended = said.get("rows") == rows
        else:
            rows += 1
            yield JournalRow(said["kind"], said["key"], said["row"])
    if not ended:
        raise _BrokenPartError("its end is missing")


async def _lines_of(store: Store, part: JournalPart) -> AsyncIterator[bytes]:
    unzip, rest = zlib.decompressobj(31), b""
    try:
        async with store.open(part.object_key) as stored:
            while data := await stored.receive():
                while data:
                    rest += unzip.decompress(data, 1 << 20)
                    data = unzip.unconsumed_tail
                    *lines, rest = rest.split(b"\n")
                    for line in lines:
                        yield line
    except zlib.error as exc:
        raise _BrokenPartError(str(exc)) from exc
    if not unzip.eof or rest:
        raise _BrokenPartError("it is cut off")
