"""Imports thumbnails that the source has made already."""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog

from mediarepo.db.import_commits import ImportThumbnails
from mediarepo.errors import MatrixError
from mediarepo.importers.errors import BytesVanishedError, SourceError
from mediarepo.importers.source import Source
from mediarepo.model.import_ledger import ImportedBytes, ImportedThumbnail, ItemMode, ObjectMode, ThumbnailEnd
from mediarepo.model.import_source import (
    ObjectBytes,
    Resolution,
    ResolutionState,
    SourceBytes,
    SourceKey,
    SourceThumbnail,
)
from mediarepo.model.media import StoreClass, ThumbnailMethod, ThumbnailSpec
from mediarepo.model.tasks import Lease
from mediarepo.services.imports.decision import DestinationStores
from mediarepo.services.imports.pipeline import Progress
from mediarepo.services.imports.throttle import KeyPool, Throttle
from mediarepo.services.stores import Stores

log = structlog.get_logger(__name__)

_BATCH = 300
_MAX_BYTES = 16 * 1024 * 1024
_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A thumbnail, and the configured size that it answers."""

    thumbnail: SourceThumbnail
    spec: ThumbnailSpec

    @property
    def key(self) -> SourceKey:
        return SourceKey(self.thumbnail.server_name, self.thumbnail.media_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailImport:
    """Imports the thumbnails of configured sizes; others would never be requested."""

    source: Source
    source_id: int
    mode: ObjectMode
    sizes: Sequence[ThumbnailSpec]
    targets: DestinationStores
    stores: Stores
    keys: KeyPool
    table: ImportThumbnails
    pace: Throttle
    progress: Progress
    lease: Lease

    async def take_all(self) -> None:
        """Read all of the source's thumbnails, and import those that are not here."""
        batch: dict[tuple[SourceKey, ThumbnailSpec], _Wanted] = {}
        async with aclosing(self.source.all_thumbnails()) as walk:
            async for thumbnail in walk:
                wanted = self._wanted(thumbnail)
                if wanted is not None:
                    batch.setdefault((wanted.key, wanted.spec), wanted)
                if len(batch) == _BATCH:
                    await self._take_some(list(batch.values()))
                    batch = {}
        await self._take_some(list(batch.values()))
        self.progress.lists = self.source.lists

    def _wanted(self, thumbnail: SourceThumbnail) -> _Wanted | None:
        spec = answered_sizes(thumbnail, self.sizes)
        if spec is None:
            self._end(thumbnail, ThumbnailEnd.OTHER_SIZE)
            return None
        if thumbnail.content_type not in _TYPES:
            self._end(thumbnail, ThumbnailEnd.OTHER_TYPE)
            return None
        return _Wanted(thumbnail, spec)

    def _end(self, thumbnail: SourceThumbnail, end: ThumbnailEnd, words: str = "") -> None:
        """Count what became of a thumbnail, and tell why it was not taken."""
        self.progress.thumbnails[end] += 1
        if end not in {ThumbnailEnd.TAKEN, ThumbnailEnd.HERE}:
            size = f"{thumbnail.width}x{thumbnail.height} {thumbnail.method}"
            mxc = f"mxc://{thumbnail.server_name}/{thumbnail.media_id}"
            log.info("import_thumbnail_skipped", mxc=mxc, size=size, reason=str(end), words=words)

    async def _take_some(self, batch: Sequence[_Wanted]) -> None:
        if not batch:
            return
        ends = await self.table.ends(self.source_id, [(one.key, one.spec) for one in batch])
        open_ones = []
        places: set[tuple[int, ThumbnailSpec]] = set()
        for one in batch:
            end = ends[one.key, one.spec]
            if isinstance(end, ThumbnailEnd):
                self._end(one.thumbnail, end)
            elif (end, one.spec) in places:
                self._end(one.thumbnail, ThumbnailEnd.HERE)
            else:
                places.add((end, one.spec))
                open_ones.append((one, await self.source.locate_thumbnail(one.thumbnail)))
        taken = await asyncio.gather(*(self._paced(self._taken(one, found)) for one, found in open_ones))
        pairs = {id(made): pair for made, pair in zip(taken, open_ones, strict=True) if made is not None}
        elsewhere = await self._commit([made for made in taken if made is not None], pairs)
        copied = await asyncio.gather(*(self._paced(self._taken(*pairs[id(made)], adopt=False)) for made in elsewhere))
        again = {id(new): pairs[id(old)] for new, old in zip(copied, elsewhere, strict=True) if new is not None}
        await self._commit([made for made in copied if made is not None], again)

    async def _commit(
        self, taken: Sequence[ImportedThumbnail], pairs: dict[int, tuple[_Wanted, Resolution]]
    ) -> list[ImportedThumbnail]:
        elsewhere = await self.table.take(self.source_id, taken, self.lease) if taken else []
        left = {id(made) for made in elsewhere}
        for made in taken:
            if id(made) not in left:
                self._end(pairs[id(made)][0].thumbnail, ThumbnailEnd.TAKEN)
        return elsewhere

    async def _paced(self, work: Awaitable[ImportedThumbnail | None]) -> ImportedThumbnail | None:
        async with self.pace.one():
            return await work

    async def _taken(self, one: _Wanted, resolution: Resolution, *, adopt: bool = True) -> ImportedThumbnail | None:
        """Have a thumbnail's bytes where we can serve them; None, with the reason told, when that cannot be."""
        found = resolution.found
        if resolution.state is not ResolutionState.FOUND or found is None:
            self._end(one.thumbnail, ThumbnailEnd.NOT_FOUND, resolution.words)
            return None
        if not 0 < found.size_bytes <= _MAX_BYTES:
            self._end(one.thumbnail, ThumbnailEnd.OTHER_SIZE, f"it has {found.size_bytes} bytes")
            return None
        try:
            adopted = self._adopted(resolution, found.size_bytes) if adopt else None
            content = adopted or await self._stored(found)
        except BytesVanishedError as exc:
            self._end(one.thumbnail, ThumbnailEnd.NOT_FOUND, str(exc))
            return None
        except (SourceError, MatrixError) as exc:
            self._end(one.thumbnail, ThumbnailEnd.FAILED, str(exc))
            return None
        return ImportedThumbnail(one.key, one.spec, one.thumbnail.content_type, content)

    def _adopted(self, resolution: Resolution, size_bytes: int) -> ImportedBytes | None:
        """Choose an object that can stay where it is."""
        for found in resolution.candidates:
            if not isinstance(found, ObjectBytes) or found.size_bytes != size_bytes:
                continue
            route = self.targets.route(
                self.source.bucket_addresses[found.byte_source], self.mode, StoreClass.THUMBNAILS
            )
            if route.mode is ItemMode.ADOPT and route.store is not None:
                return ImportedBytes(route.store, found.object_key, size_bytes, None, sha256_known=False, borrowed=True)
        return None

    async def _stored(self, found: SourceBytes) -> ImportedBytes:
        await self.pace.requests.take(1)
        data = await self.source.read(found)
        await self.pace.bytes.take(len(data))
        store = self.stores.store_for_class(StoreClass.THUMBNAILS)
        key = await self.keys.take(store, StoreClass.THUMBNAILS)
        await store.put(key, [data], size_bytes=len(data), metadata={})
        self.progress.moved_bytes += len(data)
        return ImportedBytes(store.name, key, len(data), None, sha256_known=False, intent=True)


def answered_sizes(one: SourceThumbnail, sizes: Sequence[ThumbnailSpec]) -> ThumbnailSpec | None:
    """Return the configured size a thumbnail answers: its own; if scaled, one that it fits exactly in one dimension."""
    for size in sizes:
        if size.method != one.method:
            continue
        exact = (one.width, one.height) == (size.width, size.height)
        snug = one.width <= size.width and one.height <= size.height
        snug = snug and (one.width == size.width or one.height == size.height)
        if exact or (snug and size.method is ThumbnailMethod.SCALE):
            return replace(size, animated=one.animated)
    return None
