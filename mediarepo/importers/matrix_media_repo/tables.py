"""The tables of matrix-media-repo."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import replace

from mediarepo.importers.readers.coercion import Row, ThumbnailColumns, Values, key_text, source_thumbnail
from mediarepo.importers.readers.source_database import Database, Selection, amap, existing_columns, key_name, select
from mediarepo.model.import_source import MediaKind, PreflightReport, SourceKey, SourceMedia, SourceThumbnail

_QUARANTINED_BY = "matrix-media-repo"
_COLUMNS = (
    "origin",
    "media_id",
    "upload_name",
    "content_type",
    "user_id",
    "sha256_hash",
    "size_bytes",
    "creation_ts",
    "quarantined",
    "datastore_id",
    "location",
)
_THUMBNAIL_COLUMNS = (
    "width",
    "height",
    "method",
    "content_type",
    "size_bytes",
    "animated",
    "datastore_id",
    "location",
)
_THUMBNAIL_KEYS = ("CAST(width AS TEXT)", "CAST(height AS TEXT)", "method", "CAST(animated AS TEXT)")
_RESTRICTED = "r.condition_type = 'io.t2bot.requires_authentication'"
_JOINS = {
    "last_access": ("last_access_ts", " LEFT JOIN last_access a ON a.sha256_hash = m.sha256_hash"),
    "media_attributes": ("purpose", " LEFT JOIN media_attributes p ON p.origin = m.origin AND p.media_id = m.media_id"),
    "restricted_media": (
        "condition_value",
        f" LEFT JOIN restricted_media r ON r.origin = m.origin AND r.media_id = m.media_id AND {_RESTRICTED}",
    ),
}
_SHOWN = {
    name: name
    for name in (*_COLUMNS, *(column for column, _ in _JOINS.values()), "is_thumbnail", "expires_ts", "pending")
}
_NAMELESS = frozenset({"", ".", "/"})
"""What it calls uploads without a name: the base name of nothing."""
_NAMELESS_REMOTE = _NAMELESS | {"download"}
_IS_THUMBNAIL = """(m.user_id = '' AND m.upload_name = '' AND (EXISTS (
    SELECT 1 FROM thumbnails t WHERE t.datastore_id = m.datastore_id AND t.location = m.location)
    OR (m.content_type LIKE 'image/%' AND length(m.media_id) BETWEEN 55 AND 60 AND m.media_id ~ '^[0-9a-f]+$')))"""
"""Thumbnails are kept among media as well, by nobody and without a name.

Such a row outlives the thumbnail's own when the media it was made of are purged. Its id tells then: matrix-media-repo
makes ids of a SHA-1 and a snowflake, and all that users upload has a user.
"""
_NOT_YET = "NOT EXISTS (SELECT 1 FROM media m WHERE m.origin = e.origin AND m.media_id = e.media_id)"
_TOTALS = {"rows": "COUNT(*)", "bytes": "CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT)"}


class MatrixMediaRepoTables:
    """Reads rows as media; tables and columns of later versions count as empty where they are missing."""

    def __init__(self, database: Database, *, server_names: Collection[str]) -> None:
        self._database = database
        self._server_names = server_names
        self._known: dict[str, frozenset[str]] = {}

    async def _columns(self, table: str) -> frozenset[str]:
        if table not in self._known:
            self._known[table] = await self._database.columns(table)
        return self._known[table]

    async def look_at(self, findings: PreflightReport) -> None:
        """Count the rows, for preflight."""
        for table in ("media", "thumbnails"):
            if "location" not in await self._columns(table):
                findings.problems.append(f"{self._database.words} has no table {table} that we may read (GRANT SELECT)")
        if not findings.usable:
            return
        names = ", ".join(f"{{{number}}}" for number in range(len(self._server_names)))
        kinds = {
            "local": f"origin IN ({names}) AND NOT {_IS_THUMBNAIL}",
            "remote": f"origin NOT IN ({names})",
            "thumbnail": f"origin IN ({names}) AND {_IS_THUMBNAIL}",
        }
        for kind, condition in kinds.items():
            row = (await self._database.rows(select("media m", _TOTALS, condition), *sorted(self._server_names)))[0]
            findings.counts[kind], findings.bytes[kind] = int(str(row["rows"])), int(str(row["bytes"]))
        if not findings.counts["local"] and findings.counts["remote"]:
            findings.problems.append("no media belong to the configured homeservers: their names must be wrong")

    async def datastores(self) -> dict[str, int]:
        """Count the media of each datastore that rows name."""
        query = "SELECT datastore_id, COUNT(*) AS rows FROM media GROUP BY datastore_id ORDER BY datastore_id"
        return {str(row["datastore_id"]): int(str(row["rows"])) for row in await self._database.rows(query)}

    async def reserved(self) -> list[SourceKey]:
        """Return the addresses that may never be used again."""
        if not await self._columns("reserved_media"):
            return []
        rows = await self._database.rows("SELECT origin, media_id FROM reserved_media ORDER BY origin, media_id")
        return [SourceKey(key_text(row["origin"]), key_text(row["media_id"])) for row in rows]

    async def media(self, after: SourceKey | None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over media and reserved ids, in the order of keys."""
        selection = Selection(await self._everything(), _SHOWN, ("origin", "media_id"))
        async with aclosing(amap(self._database.stream(selection, after), self._media)) as found:
            async for media in found:
                yield media

    async def get(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now."""
        query = select(await self._everything(), _SHOWN, "origin = {0} AND media_id = {1}")
        rows = await self._database.rows(query, server_name, media_id)
        return self._media(rows[0]) if rows else None

    async def by_place(self, datastore: str) -> AsyncGenerator[tuple[str, SourceMedia | None], None]:
        """Iterate over the locations of one datastore; those of thumbnails come without media."""
        nothing = ", ".join("t.datastore_id" if name == "datastore_id" else "NULL" for name in _SHOWN)
        nothing = nothing.removesuffix("NULL") + "FALSE"
        thumbnails = f"SELECT {nothing}, t.location, TRUE FROM thumbnails t"
        union = f"{await self._present('m.location AS place, FALSE AS thumbnail')} UNION ALL {thumbnails}"
        keys = ("place", "COALESCE(origin, '')", "COALESCE(media_id, '')")
        columns = {**_SHOWN, "thumbnail": "thumbnail"}
        selection = Selection(f"({union}) AS places", columns, keys, "datastore_id = {0}", (datastore,))
        async with aclosing(self._database.stream(selection)) as rows:
            async for row in rows:
                yield key_text(row[key_name(0)]), None if row["thumbnail"] else self._media(row)

    def is_known(self, datastore: str) -> Callable[[str], Awaitable[bool]]:
        """Return a function that tells whether a location of a datastore is in use by now."""

        async def look(location: str) -> bool:
            condition = "datastore_id = {0} AND location = {1}"
            queries = [select(table, {"one": "1"}, condition) for table in ("media", "thumbnails")]
            return bool(await self._database.rows(" UNION ALL ".join(queries), datastore, location))

        return look

    async def thumbnails(self, media: SourceMedia) -> list[SourceThumbnail]:
        """Return the thumbnails of one piece of media, by size."""
        columns = existing_columns(await self._columns("thumbnails"), _THUMBNAIL_COLUMNS)
        query = select("thumbnails", columns, "origin = {0} AND media_id = {1}")
        rows = await self._database.rows(query, media.server_name, media.media_id)
        found = [_thumbnail(media, row) for row in rows]
        return sorted(found, key=lambda one: (one.width, one.height, one.method, one.animated))

    async def all_thumbnails(self) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over all thumbnails, by datastore and location."""
        columns = {
            **existing_columns(await self._columns("thumbnails"), _THUMBNAIL_COLUMNS),
            "origin": "origin",
            "id": "media_id",
        }
        keys = ("datastore_id", "location", "origin", "media_id", *_THUMBNAIL_KEYS)
        async with aclosing(self._database.stream(Selection("thumbnails", columns, keys))) as rows:
            async for row in rows:
                server_name = key_text(row["origin"])
                kind = MediaKind.LOCAL if server_name in self._server_names else MediaKind.REMOTE
                of = SourceMedia(server_name=server_name, media_id=key_text(row["id"]), kind=kind)
                yield _thumbnail(of, row)

    async def _everything(self) -> str:
        """Write what to read from: media, and the announced that are no media yet."""
        union = await self._present()
        if await self._columns("expiring_media"):
            known = {"origin", "media_id", "user_id", "expires_ts"}
            columns = ", ".join(f"e.{name}" if name in known else "NULL" for name in _SHOWN)
            announced = columns.removesuffix("NULL") + "TRUE"
            union += f" UNION ALL SELECT {announced} FROM expiring_media e WHERE {_NOT_YET}"
        return f"({union}) AS everything"

    async def _present(self, *more: str) -> str:
        """Write what reads media, with all that other tables say of them; `pending` is its last column but for more."""
        columns = existing_columns(await self._columns("media"), _COLUMNS, prefix="m.")
        joins = ""
        for table, (column, join) in _JOINS.items():
            columns[column] = column if await self._columns(table) else "NULL"
            joins += join if await self._columns(table) else ""
        columns |= {"is_thumbnail": _IS_THUMBNAIL, "expires_ts": "CAST(NULL AS BIGINT)", "pending": "FALSE"}
        expressions = ", ".join([*(f"{columns[name]} AS {name}" for name in _SHOWN), *more])
        return f"SELECT {expressions} FROM media m{joins}"

    def _media(self, row: Row) -> SourceMedia:
        values = Values(row)
        server_name = key_text(row["origin"])
        media = SourceMedia(
            server_name=server_name,
            media_id=key_text(row["media_id"]),
            kind=self._kind(row),
            content_type=values.text("content_type") or None,
            size_bytes=values.size("size_bytes"),
            created_ts=values.integer("creation_ts"),
            upload_name=self._upload_name(values.text("upload_name"), server_name),
            user_id=values.text("user_id") or None,
            last_access_ts=values.integer("last_access_ts"),
            quarantined_by=_QUARANTINED_BY if values.flag("quarantined") else None,
            protected=values.text("purpose") == "pinned",
            authenticated=values.text("condition_value") == "true",
            sha256=values.sha256("sha256_hash"),
            pending=values.flag("pending"),
            expires_ts=values.integer("expires_ts"),
            filesystem_id=_place(row),
            may_lack_content=values.flag("quarantined"),
        )
        return replace(media, repaired=tuple(values.repaired))

    def _upload_name(self, name: str | None, server_name: str) -> str | None:
        nameless = _NAMELESS if server_name in self._server_names else _NAMELESS_REMOTE
        return None if name in nameless else name

    def _kind(self, row: Row) -> MediaKind:
        if key_text(row["origin"]) not in self._server_names:
            return MediaKind.REMOTE
        return MediaKind.THUMBNAIL if row["is_thumbnail"] else MediaKind.LOCAL


def _place(row: Row) -> str | None:
    if not row["location"]:
        return None
    return f"{key_text(row['datastore_id'])}/{key_text(row['location'])}"


_THUMBNAIL_NAMES = ThumbnailColumns("width", "height", "method", "content_type", "size_bytes")


def _thumbnail(media: SourceMedia, row: Row) -> SourceThumbnail:
    values = Values(row)
    return source_thumbnail(
        media, values, _THUMBNAIL_NAMES, filesystem_id=_place(row), animated=values.flag("animated")
    )
