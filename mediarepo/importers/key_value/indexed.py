"""Sources whose rows cannot be asked for in any order of use: they are read whole, and put in order here."""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Collection, Sequence

from mediarepo.importers.reading.joining import Joining, Placed
from mediarepo.importers.reading.shelved import ShelvedSource
from mediarepo.importers.reading.shelves import path_order
from mediarepo.model.imports import Located, Orphan, SourceKey, SourceMedia, SourceThumbnail

_FRESH_MS = 10 * 60 * 1000


class IndexedSource(ShelvedSource):
    """Holds every row in memory while it walks, some hundred bytes each; these servers are small."""

    @abstractmethod
    async def read_all(self) -> list[SourceMedia]:
        """Read every row, in any order."""

    async def other_paths(self) -> Collection[str]:
        """Name the paths of bytes that belong to something else than rows, such as thumbnails."""
        return ()

    async def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Walk through all media in the order of their keys."""
        for media in sorted(await self.read_all(), key=lambda one: one.key.order):
            if after is None or media.key.order > after.order:
                yield media

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Get one row as it is now."""
        wanted = SourceKey(server_name, media_id)
        return next((media for media in await self.read_all() if media.key == wanted), None)

    async def located(self) -> AsyncGenerator[Located | Orphan, None]:
        """Walk through all media and bytes, in the order of paths."""
        placed = [self.place(media) for media in await self.read_all()]
        placed += [Placed(None, path) for path in await self.other_paths()]
        placed.sort(key=lambda one: path_order(one.path or ""))
        joining = Joining(self.shelves, started_ts=self._now_ms() - _FRESH_MS, is_known=self._is_known)
        async for met in joining.join(_each(placed), ""):
            yield met

    async def _is_known(self, path: str) -> bool:
        return any(self.place(media).path == path for media in await self.read_all())

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Walk through the thumbnails that are known of."""
        for thumbnail in await self.known_thumbnails(media):
            yield thumbnail

    @abstractmethod
    async def known_thumbnails(self, media: SourceMedia) -> Sequence[SourceThumbnail]:
        """List the thumbnails that are known of."""

    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Name a thumbnail's path, which is what its row calls its place."""
        return [thumbnail.filesystem_id] if thumbnail.filesystem_id else []


async def _each(placed: Sequence[Placed]) -> AsyncGenerator[Placed, None]:
    for one in placed:
        yield one
