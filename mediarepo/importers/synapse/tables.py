"""Synapse's media tables, of any schema version."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from mediarepo.importers.readers.coercion import Row, ThumbnailColumns, Values, key_text, source_thumbnail
from mediarepo.importers.readers.source_database import Database, Selection, amap, existing_columns, key_name, select
from mediarepo.model.import_source import MediaKind, SourceMedia, SourceThumbnail

LOCAL, REMOTE = "local_media_repository", "remote_media_cache"
LOCAL_THUMBNAILS, REMOTE_THUMBNAILS = "local_media_repository_thumbnails", "remote_media_cache_thumbnails"
TABLES = (LOCAL, REMOTE, LOCAL_THUMBNAILS, REMOTE_THUMBNAILS)
CHANGES = "quarantined_media_changes"
_CHANGE = frozenset({"stream_id", "origin", "media_id", "quarantined"})
_BLOCKS = f"""SELECT DISTINCT COALESCE(c.origin, '') AS media_origin, c.media_id AS media_id FROM {CHANGES} c
    WHERE c.quarantined AND NOT EXISTS (SELECT 1 FROM {CHANGES} n WHERE n.media_id = c.media_id
            AND COALESCE(n.origin, '') = COALESCE(c.origin, '') AND n.stream_id > c.stream_id)
        AND NOT EXISTS (SELECT 1 FROM {LOCAL} m WHERE c.origin IS NULL AND m.media_id = c.media_id)
        AND NOT EXISTS (SELECT 1 FROM {REMOTE} m WHERE m.media_origin = c.origin AND m.media_id = c.media_id)"""
_QUARANTINED_BY = "synapse"
_SHARED = (
    "media_type",
    "media_length",
    "created_ts",
    "upload_name",
    "quarantined_by",
    "last_access_ts",
    "authenticated",
    "sha256",
)
ALL_COLUMNS = (*_SHARED, "user_id", "url_cache", "safe_from_quarantine", "media_origin", "media_id", "filesystem_id")
_LOCAL_ONLY = ("user_id", "url_cache", "safe_from_quarantine")
_REMOTE_ONLY = ("media_origin", "media_id", "filesystem_id")
_THUMBNAIL = (
    "thumbnail_width",
    "thumbnail_height",
    "thumbnail_type",
    "thumbnail_method",
    "thumbnail_length",
    "filesystem_id",
)


class Tables:
    """Reads rows as media; columns that a schema lacks count as NULL."""

    def __init__(self, database: Database, *, server_name: str, unused_expiration_ms: int) -> None:
        self._database = database
        self._server_name = server_name
        self._unused_expiration_ms = unused_expiration_ms
        self._columns: dict[str, frozenset[str]] = {}

    async def columns(self, table: str) -> frozenset[str]:
        """Return a table's columns; cached."""
        if table not in self._columns:
            self._columns[table] = await self._database.columns(table)
        return self._columns[table]

    async def local(
        self, after: str | None = None, *, url_cache: bool | None = None
    ) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over local media by id: all, only those of previews, or only others."""
        columns = await self.columns(LOCAL)
        if "media_id" not in columns:
            return
        where = "1 = 1"
        if url_cache is not None and "url_cache" in columns:
            where = "url_cache IS NOT NULL" if url_cache else "url_cache IS NULL"
        elif url_cache:
            return
        selection = Selection(LOCAL, existing_columns(columns, (*_SHARED, *_LOCAL_ONLY)), ("media_id",), where)
        rows = self._database.stream(selection, None if after is None else (after,))
        async with aclosing(amap(rows, lambda row: self._local(key_text(row[key_name(0)]), row))) as found:
            async for media in found:
                yield media

    async def remote(
        self, keys: Sequence[str], *, where: str, arguments: tuple[str, ...] = (), after: Sequence[str] | None = None
    ) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over remote media by these keys."""
        columns = await self.columns(REMOTE)
        if "media_id" not in columns:
            return
        wanted = existing_columns(columns, (*_SHARED, *_REMOTE_ONLY))
        selection = Selection(REMOTE, wanted, tuple(keys), where, arguments)
        async with aclosing(amap(self._database.stream(selection, after), remote_media)) as found:
            async for media in found:
                yield media

    async def get(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now."""
        if server_name == self._server_name:
            rows = await self._rows(LOCAL, (*_SHARED, *_LOCAL_ONLY), media_id)
            return self._local(media_id, rows[0]) if rows else None
        rows = await self._rows(REMOTE, (*_SHARED, *_REMOTE_ONLY), server_name, media_id)
        return remote_media(rows[0]) if rows else None

    async def blocks(self, address: tuple[str, str] | None = None) -> list[SourceMedia]:
        """Return addresses, or one, that are quarantined and have no row any more (Synapse 1.152 and later)."""
        if not await self.columns(CHANGES) >= _CHANGE:
            return []
        if address is None:
            return [self._block(row) for row in await self._database.rows(_BLOCKS)]
        origin = "" if address[0] == self._server_name else address[0]
        query = f"{_BLOCKS} AND COALESCE(c.origin, '') = {{0}} AND c.media_id = {{1}}"
        return [self._block(row) for row in await self._database.rows(query, origin, address[1])]

    def _block(self, row: Row) -> SourceMedia:
        origin = key_text(row["media_origin"])
        return SourceMedia(
            server_name=origin or self._server_name,
            media_id=key_text(row["media_id"]),
            kind=MediaKind.REMOTE if origin else MediaKind.LOCAL,
            quarantined_by=_QUARANTINED_BY,
            block_only=True,
        )

    async def _rows(self, table: str, wanted: Sequence[str], *address: str) -> list[Row]:
        columns = await self.columns(table)
        if "media_id" not in columns:
            return []
        condition = "media_id = {0}" if len(address) == 1 else "media_origin = {0} AND media_id = {1}"
        return await self._database.rows(select(table, existing_columns(columns, wanted), condition), *address)

    async def has_file(self, server_name: str, filesystem_id: str) -> bool:
        """Return whether a row of remote media names this file by now."""
        if "filesystem_id" not in await self.columns(REMOTE):
            return False
        query = select(REMOTE, {"one": "1"}, "media_origin = {0} AND filesystem_id = {1}")
        return bool(await self._database.rows(query, server_name, filesystem_id))

    async def thumbnails(self, media: SourceMedia) -> list[SourceThumbnail]:
        """Return the thumbnails of one piece of media, by size."""
        remote = media.kind is MediaKind.REMOTE
        address = (media.server_name, media.media_id) if remote else (media.media_id,)
        rows = await self._rows(REMOTE_THUMBNAILS if remote else LOCAL_THUMBNAILS, _THUMBNAIL, *address)
        found = [_thumbnail(media, row) for row in rows]
        return sorted(found, key=lambda one: (one.width, one.height, one.method, one.content_type))

    def _local(self, media_id: str, row: Row) -> SourceMedia:
        return local_media(
            row, media_id, server_name=self._server_name, unused_expiration_ms=self._unused_expiration_ms
        )


def local_media(row: Row, media_id: str, *, server_name: str, unused_expiration_ms: int) -> SourceMedia:
    """Return a row of local media as SourceMedia; without a length it is a reserved id, unless a preview made it."""
    values = Values(row)
    url_cache = row["url_cache"] is not None
    media = replace(
        _shared(values, server_name, media_id, MediaKind.URL_CACHE if url_cache else MediaKind.LOCAL),
        user_id=values.text("user_id"),
        protected=values.flag("safe_from_quarantine"),
    )
    if row["media_length"] is None and not url_cache:
        media = replace(media, pending=True, expires_ts=(media.created_ts or 0) + unused_expiration_ms)
    return replace(media, repaired=tuple(values.repaired))


def remote_media(row: Row) -> SourceMedia:
    """Return a row of remote media as SourceMedia."""
    values = Values(row)
    media = _shared(values, key_text(row["media_origin"]), key_text(row["media_id"]), MediaKind.REMOTE)
    filesystem_id = key_text(row["filesystem_id"]) or None
    return replace(media, filesystem_id=filesystem_id, repaired=tuple(values.repaired))


def _shared(values: Values, server_name: str, media_id: str, kind: MediaKind) -> SourceMedia:
    return SourceMedia(
        server_name=server_name,
        media_id=media_id,
        kind=kind,
        content_type=values.text("media_type"),
        size_bytes=values.size("media_length"),
        created_ts=values.integer("created_ts"),
        upload_name=values.text("upload_name"),
        last_access_ts=values.integer("last_access_ts"),
        quarantined_by=values.text("quarantined_by"),
        authenticated=values.flag("authenticated"),
        sha256=values.sha256("sha256"),
    )


_THUMBNAIL_NAMES = ThumbnailColumns(
    "thumbnail_width", "thumbnail_height", "thumbnail_method", "thumbnail_type", "thumbnail_length"
)


def _thumbnail(media: SourceMedia, row: Row) -> SourceThumbnail:
    values = Values(row)
    animated = values.text("thumbnail_type") == "image/webp" and media.content_type != "image/webp"
    return source_thumbnail(
        media,
        values,
        _THUMBNAIL_NAMES,
        filesystem_id=key_text(row["filesystem_id"]) or media.filesystem_id,
        animated=animated,
    )
