"""matrix-media-repo: rows that say in which datastore their content is, and where in it."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from mediarepo.importers.errors import SourceError
from mediarepo.importers.matrix_media_repo.config import (
    BucketDatastore,
    FolderDatastore,
    MatrixMediaRepoConfig,
)
from mediarepo.importers.matrix_media_repo.tables import MatrixMediaRepoTables
from mediarepo.importers.reading.addresses import open_database
from mediarepo.importers.reading.buckets import Bucket
from mediarepo.importers.reading.folders import FolderShelf
from mediarepo.importers.reading.joining import Joining, Placed
from mediarepo.importers.reading.objects import BucketShelf
from mediarepo.importers.reading.shelved import ShelvedSource, check_shelves, try_some, wall_clock_ms
from mediarepo.importers.reading.shelves import Shelf
from mediarepo.importers.reading.walking import mapped
from mediarepo.model.imports import (
    SAMPLES,
    Findings,
    Located,
    Orphan,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
)

_FRESH_MS = 10 * 60 * 1000


class MatrixMediaRepoSource(ShelvedSource):
    """A Source. A row's `filesystem_id` is its datastore's id, a slash, and its location there."""

    def __init__(
        self,
        config: MatrixMediaRepoConfig,
        *,
        name: str = "mmr",
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self.database = open_database(config.database)
        self.tables = MatrixMediaRepoTables(self.database, server_names=config.server_names)
        shelves = [_shelf(datastore, follow_links=follow_links) for datastore in config.datastores]
        super().__init__(name, self.database, shelves, now_ms=now_ms)

    async def preflight(self, *, tries: int = SAMPLES) -> Findings:
        """Look at the tables, every datastore, and a few originals."""
        findings = Findings(facts=[f"the server names are {', '.join(sorted(self.config.server_names))}"])
        findings.problems += [f"datastores of type {kind} are not supported" for kind in self.config.unknown]
        await check_shelves(self.shelves, findings)
        try:
            await self.tables.look_at(findings)
            findings.warnings.extend(self.database.warnings)
            if findings.usable:
                await self._look_at_datastores(findings)
                await try_some(self, self.media(), findings, count=tries)
        except SourceError as exc:
            findings.problems.append(str(exc))
        return findings

    async def _look_at_datastores(self, findings: Findings) -> None:
        configured = {shelf.name for shelf in self.shelves}
        for name, count in (await self.tables.datastores()).items():
            findings.facts.append(f"{count} media lie in the datastore {name}")
            if name not in configured:
                findings.problems.append(f"{count} media lie in the datastore {name!r}, which is not configured")

    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Walk through all media in the order of their keys, those among them that are announced only."""
        return self.tables.media(after)

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Get one row as it is now."""
        return await self.tables.get(server_name, media_id)

    async def reserved(self) -> list[SourceKey]:
        """List the addresses that were media once, and must never be given to other media."""
        return await self.tables.reserved()

    def place(self, media: SourceMedia) -> Placed:
        """Say at which path of its datastore a row's bytes lie."""
        if media.pending:
            return Placed(media, "")
        location = _location(media.filesystem_id)
        return Placed(media, location, None if location else "the row has no location")

    def shelves_of(self, filesystem_id: str | None) -> Sequence[Shelf]:
        """Say in which datastore bytes lie: the row names it."""
        name = (filesystem_id or "").partition("/")[0]
        return [shelf for shelf in self.shelves if shelf.name == name]

    async def located(self) -> AsyncGenerator[Located | Orphan, None]:
        """Walk through all media and bytes, one datastore after the other; then what is not in any."""
        for shelf in self.shelves:
            joining = Joining([shelf], started_ts=self._now_ms() - _FRESH_MS, is_known=self.tables.is_known(shelf.name))
            places = mapped(self.tables.by_place(shelf.name), _placed)
            async with aclosing(joining.join(places, "")) as meetings:
                async for met in meetings:
                    yield met
        async with aclosing(self.tables.media(None)) as rows:
            async for media in rows:
                if media.pending or not self.shelves_of(media.filesystem_id):
                    yield Located(media, await self.locate(media))

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Walk through the rows of its thumbnails."""
        for thumbnail in await self.tables.thumbnails(media):
            yield thumbnail

    def all_thumbnails(self) -> AsyncGenerator[SourceThumbnail, None]:
        """Walk through the rows of all thumbnails, by their places."""
        return self.tables.all_thumbnails()

    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Name a thumbnail's location."""
        location = _location(thumbnail.filesystem_id)
        return [location] if location else []


def _placed(found: tuple[str, SourceMedia | None]) -> Placed:
    location, media = found
    return Placed(media, location, None if location else "the row has no location")


def _location(filesystem_id: str | None) -> str | None:
    return (filesystem_id or "").partition("/")[2] or None


def _shelf(datastore: FolderDatastore | BucketDatastore, *, follow_links: bool) -> Shelf:
    if isinstance(datastore, FolderDatastore):
        return FolderShelf(datastore.datastore_id, datastore.folder, follow_links=follow_links)
    return BucketShelf(datastore.datastore_id, Bucket(datastore.address), prefix="")
