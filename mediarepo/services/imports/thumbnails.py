"""Thumbnails that the source has made already, taken where they lie in a bucket that is one of our stores."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from mediarepo.importers.source import Source
from mediarepo.model.import_items import ItemMode, TakenThumbnail
from mediarepo.model.imports import ObjectBytes, ResolutionState, SourceThumbnail
from mediarepo.model.thumbnails import ThumbnailMethod, ThumbnailSpec
from mediarepo.services.imports.judging import Carry


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailTaking:
    """Finds the thumbnails that answer the sizes configured here; others would never be asked for."""

    source: Source
    sizes: Sequence[ThumbnailSpec]

    async def of(self, item: Carry) -> tuple[TakenThumbnail, ...]:
        """List those of one piece of media that is adopted; none of any other."""
        if item.route.mode is not ItemMode.ADOPT or item.route.store is None:
            return ()
        taken: dict[ThumbnailSpec, TakenThumbnail] = {}
        async with aclosing(self.source.thumbnails(item.media)) as listed:
            async for one in listed:
                spec = answered(one, self.sizes)
                if spec is not None and spec not in taken:
                    found = await self._take(one, spec, item.route.store)
                    if found is not None:
                        taken[spec] = found
        return tuple(taken.values())

    async def _take(self, one: SourceThumbnail, spec: ThumbnailSpec, store: str) -> TakenThumbnail | None:
        resolution = await self.source.locate_thumbnail(one)
        found = resolution.found
        if resolution.state is not ResolutionState.FOUND or not isinstance(found, ObjectBytes) or not found.size_bytes:
            return None
        return TakenThumbnail(
            spec.width,
            spec.height,
            spec.method,
            one.animated,
            one.content_type,
            store,
            found.object_key,
            found.size_bytes,
        )


def answered(one: SourceThumbnail, sizes: Sequence[ThumbnailSpec]) -> ThumbnailSpec | None:
    """Say which configured size a thumbnail answers: its own; if scaled, the one into which it fits snugly."""
    for size in sizes:
        if size.method != one.method:
            continue
        exact = (one.width, one.height) == (size.width, size.height)
        snug = one.width <= size.width and one.height <= size.height
        snug = snug and (one.width == size.width or one.height == size.height)
        if exact or (snug and size.method is ThumbnailMethod.SCALE):
            return ThumbnailSpec(size.width, size.height, size.method, one.animated)
    return None
