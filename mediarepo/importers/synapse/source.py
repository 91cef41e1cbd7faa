"""Synapse's media, out of its database, its folders and its buckets."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from mediarepo.importers.errors import SourceError
from mediarepo.importers.reading.addresses import open_database
from mediarepo.importers.reading.buckets import Bucket
from mediarepo.importers.reading.folders import FolderShelf
from mediarepo.importers.reading.joining import Joining, Placed
from mediarepo.importers.reading.objects import BucketShelf
from mediarepo.importers.reading.shelved import ShelvedSource, check_shelves, try_some, wall_clock_ms
from mediarepo.importers.reading.shelves import Shelf
from mediarepo.importers.reading.walking import chained, mapped
from mediarepo.importers.synapse.config import FolderProvider, SynapseConfig
from mediarepo.importers.synapse.paths import folder_of, media_of, place, thumbnail_paths
from mediarepo.importers.synapse.preflight import look_at
from mediarepo.importers.synapse.rows import Tables
from mediarepo.model.imports import (
    SAMPLES,
    Findings,
    Located,
    MediaKind,
    Orphan,
    Resolution,
    ResolutionState,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
)

_BY_KEY = ("media_origin", "media_id")
_BY_PLACE = ("media_origin || '/'", "COALESCE(filesystem_id, '')", "media_id")
_NO_ROW = Resolution(ResolutionState.MISSING, "quarantined, and there is no such media any more")
_FRESH_MS = 10 * 60 * 1000


class SynapseSource(ShelvedSource):
    """A Source; `shelves` replaces what the configuration says of folders and buckets.

    Rows about Synapse's own media among those of other servers are nothing that Synapse would ever serve, and left out.
    """

    def __init__(
        self,
        config: SynapseConfig,
        *,
        name: str = "synapse",
        shelves: Sequence[Shelf] | None = None,
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self.database = open_database(config.database)
        chosen = shelves if shelves is not None else make_shelves(config, follow_links=follow_links)
        super().__init__(name, self.database, chosen, now_ms=now_ms)
        self.tables = Tables(
            self.database, server_name=config.server_name, unused_expiration_ms=config.unused_expiration_ms
        )

    async def preflight(self, *, tries: int = SAMPLES) -> Findings:
        """Look at database, folders and buckets, and try a few originals."""
        findings = await look_at(self.config, self.database, self.tables, now_ms=self._now_ms())
        await check_shelves(self.shelves, findings)
        if findings.usable:
            try:
                await try_some(self, self.tables.local(url_cache=False), findings, count=tries)
            except SourceError as exc:
                findings.problems.append(str(exc))
        return findings

    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Walk through all media in the order of server names and ids."""
        own = self.config.server_name
        walks: list[AsyncGenerator[SourceMedia, None]] = []
        if after is None or after.order[0] < own.encode():
            walks.append(self._remote("{own} > {name}", after))
        if after is None or after.order[0] <= own.encode():
            walks.append(self.tables.local(after.media_id if after and after.server_name == own else None))
        walks.append(self._remote("{own} < {name}", after))
        return chained(*walks)

    def _remote(self, condition: str, after: SourceKey | None) -> AsyncGenerator[SourceMedia, None]:
        own = self.config.server_name
        name = self.database.dialect.bytewise("media_origin")
        where = condition.format(own="{0}", name=name)
        return self.tables.remote(_BY_KEY, where=where, arguments=(own,), after=after)

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Get one row as it is now."""
        found = await self.tables.get(server_name, media_id)
        if found is not None:
            return found
        return next(iter(await self.tables.blocks((server_name, media_id))), None)

    def place(self, media: SourceMedia) -> Placed:
        """Say at which path a row's bytes lie."""
        return place(media)

    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Name a thumbnail's path, and the one it would have had long ago."""
        return thumbnail_paths(thumbnail)

    async def located(self) -> AsyncGenerator[Located | Orphan, None]:
        """Walk through all media and bytes: local ones, those of previews, those of other servers, then blocks."""
        started_ts = self._now_ms() - _FRESH_MS
        joining = Joining(self.shelves, started_ts=started_ts, is_known=self._is_known)
        remote = self.tables.remote(_BY_PLACE, where="media_origin <> {0}", arguments=(self.config.server_name,))
        for kind, rows in (
            (MediaKind.LOCAL, self.tables.local(url_cache=False)),
            (MediaKind.URL_CACHE, self.tables.local(url_cache=True)),
            (MediaKind.REMOTE, remote),
        ):
            async with aclosing(joining.join(mapped(rows, place), folder_of(kind))) as meetings:
                async for met in meetings:
                    yield met
        for block in await self.tables.blocks():
            yield Located(block, _NO_ROW)

    async def _is_known(self, path: str) -> bool:
        found = media_of(path)
        if found is None:
            return False
        kind, server_name, name = found
        if kind is MediaKind.REMOTE:
            return await self.tables.has_file(server_name, name)
        return await self.tables.get(self.config.server_name, name) is not None

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Walk through the rows of its thumbnails."""
        for thumbnail in await self.tables.thumbnails(media):
            yield thumbnail


def make_shelves(config: SynapseConfig, *, follow_links: bool = False) -> list[Shelf]:
    """Make shelves of everything the configuration names, in the order in which Synapse looks."""
    shelves: list[Shelf] = [FolderShelf("media_store", config.media_store_path, follow_links=follow_links)]
    for number, provider in enumerate(config.providers, 1):
        name = f"provider {number}"
        if isinstance(provider, FolderProvider):
            shelves.append(FolderShelf(name, provider.folder, follow_links=follow_links))
        else:
            shelves.append(BucketShelf(name, Bucket(provider.address), prefix=provider.prefix))
    return shelves
