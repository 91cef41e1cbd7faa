"""Reads Dendrite: one table, and files named by content hash."""

import base64
import binascii
import os
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from mediarepo.importers.errors import SourceConfigError, SourceError
from mediarepo.importers.readers.coercion import (
    Row,
    ThumbnailColumns,
    Values,
    key_text,
    load_files,
    source_thumbnail,
    yaml_entries,
    yaml_section,
    yaml_text,
)
from mediarepo.importers.readers.database_address import DatabaseAddress, SqliteAddress, open_database, postgres_address
from mediarepo.importers.readers.merge_join import BytePlaces, MergeJoin
from mediarepo.importers.readers.source_base import BaseSource, check_byte_sources, probe_originals, wall_clock_ms
from mediarepo.importers.readers.source_database import Selection, amap, select
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.model.import_source import (
    SAMPLES,
    MediaKind,
    PreflightReport,
    SourceItem,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
    UnclaimedBytes,
)

_MEDIA, _THUMBNAILS = "mediaapi_media_repository", "mediaapi_thumbnail"
_WANTED = (
    "media_id",
    "media_origin",
    "content_type",
    "file_size_bytes",
    "creation_ts",
    "upload_name",
    "base64hash",
    "user_id",
)
_COLUMNS = {name: name for name in _WANTED}
_THUMBNAIL_COLUMNS = {name: name for name in ("content_type", "file_size_bytes", "width", "height", "resize_method")}
_TOTALS = {"rows": "COUNT(*)", "bytes": "CAST(COALESCE(SUM(file_size_bytes), 0) AS BIGINT)"}
_BY_ADDRESS = "media_origin = {0} AND media_id = {1}"
_HASH = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_METHOD = re.compile(r"[a-z]+", re.ASCII)
_FRESH_MS = 10 * 60 * 1000


@dataclass(frozen=True, slots=True)
class DendriteConfig:
    """The settings of dendrite.yaml that an import needs; `server_names` include virtual hosts."""

    server_names: frozenset[str]
    database: DatabaseAddress
    base_path: Path


def load_dendrite_config(path: Path, *, base: Path | None = None) -> DendriteConfig:
    """Read dendrite.yaml; relative paths start at `base`, Dendrite's working folder, or at the file's folder.

    Raises SourceConfigError when it cannot be read or has no global.server_name.
    """
    document = load_files([path])
    base = base or path.parent
    shared, media = yaml_section(document.get("global"), "global"), yaml_section(document.get("media_api"), "media_api")
    name = yaml_text(shared.get("server_name"))
    if name is None:
        raise SourceConfigError(f"{path} has no global.server_name")
    hosts = [
        yaml_section(host, "a virtual host")
        for host in yaml_entries(shared.get("virtual_hosts"), "global.virtual_hosts")
    ]
    names = frozenset({name, *(yaml_text(host.get("server_name")) or name for host in hosts)})
    folder = yaml_text(media.get("base_path")) or "./media_store"
    return DendriteConfig(names, _database(shared, media, path, base), Path(os.path.normpath(base / folder)))


def _database(shared: dict[str, object], media: dict[str, object], path: Path, base: Path) -> DatabaseAddress:
    for holder in (media, shared):
        connection = yaml_text(yaml_section(holder.get("database"), "database").get("connection_string"))
        if connection is None:
            continue
        if connection.startswith("file:"):
            file = unquote(connection.removeprefix("file:").partition("?")[0])
            return SqliteAddress(Path(os.path.normpath(base / (file.removeprefix("//") or file))))
        return postgres_address({"dsn": connection})
    raise SourceConfigError(f"{path} has neither media_api.database nor global.database with a connection_string")


_THUMBNAIL_NAMES = ThumbnailColumns("width", "height", "resize_method", "content_type", "file_size_bytes")


class DendriteSource(BaseSource):
    """A Source. A row's size is not trusted: for a second upload of known content it is the client's claim."""

    def __init__(
        self,
        config: DendriteConfig,
        *,
        name: str = "dendrite",
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self.database = open_database(config.database)
        byte_source = FolderByteSource("base_path", config.base_path, follow_links=follow_links)
        super().__init__(name, self.database, [byte_source], now_ms=now_ms)

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:
        """Check the table, the folder, and a few originals."""
        findings = PreflightReport(facts=[f"the server names are {', '.join(sorted(self.config.server_names))}"])
        await check_byte_sources(self.byte_sources, findings)
        try:
            await self._count(findings)
            if findings.usable:
                await probe_originals(self, self.media(), findings, count=tries)
        except SourceError as exc:
            findings.problems.append(str(exc))
        return findings

    async def _count(self, findings: PreflightReport) -> None:
        for table in (_MEDIA, _THUMBNAILS):
            if not await self.database.columns(table):
                findings.problems.append(f"{self.database.words} has no table {table} that we may read (GRANT SELECT)")
        findings.warnings.extend(self.database.warnings)
        if not findings.usable:
            return
        for kind, sign in (("local", "<>"), ("remote", "=")):
            row = (await self.database.rows(select(_MEDIA, _TOTALS, f"user_id {sign} ''")))[0]
            findings.counts[kind], findings.bytes[kind] = int(str(row["rows"])), int(str(row["bytes"]))
        names = ", ".join(f"{{{number}}}" for number in range(len(self.config.server_names)))
        query = select(_MEDIA, _TOTALS, f"media_origin IN ({names})")
        own = (await self.database.rows(query, *sorted(self.config.server_names)))[0]
        if findings.counts["local"] and not int(str(own["rows"])):
            findings.problems.append("no media belong to the server name: it must be wrong")

    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over all media in the order of their keys."""
        selection = Selection(_MEDIA, _COLUMNS, ("media_origin", "media_id"))
        return amap(self.database.stream(selection, after), self._media_of)

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now."""
        rows = await self.database.rows(select(_MEDIA, _COLUMNS, _BY_ADDRESS), server_name, media_id)
        return self._media(server_name, media_id, rows[0]) if rows else None

    def _media_of(self, row: Row) -> SourceMedia:
        return self._media(key_text(row["media_origin"]), key_text(row["media_id"]), row)

    def _media(self, server_name: str, media_id: str, row: Row) -> SourceMedia:
        values = Values(row)
        media = SourceMedia(
            server_name=server_name,
            media_id=media_id,
            kind=MediaKind.LOCAL if server_name in self.config.server_names else MediaKind.REMOTE,
            content_type=values.text("content_type") or None,
            created_ts=values.integer("creation_ts"),
            upload_name=unquote(values.text("upload_name") or "") or None,
            user_id=values.text("user_id") or None,
            sha256=_sha256(values.text("base64hash")),
            filesystem_id=key_text(row["base64hash"]),
        )
        return replace(media, repaired=tuple(values.repaired))

    async def located(self) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Iterate over all media and files, in the order of content hashes."""
        joining = MergeJoin(
            self.byte_sources,
            started_ts=self._now_ms() - _FRESH_MS,
            is_known=self._is_known,
            is_original=lambda path: path.endswith("/file"),
        )
        selection = Selection(_MEDIA, _COLUMNS, ("base64hash", "media_origin", "media_id"))
        rows = amap(self.database.stream(selection), lambda row: self.place(self._media_of(row)))
        async with aclosing(joining.join(rows, "")) as meetings:
            async for met in meetings:
                yield met

    async def _is_known(self, path: str) -> bool:
        name = path.removesuffix("/file").replace("/", "")
        return bool(await self.database.rows(select(_MEDIA, {"one": "1"}, "base64hash = {0}"), name))

    def place(self, media: SourceMedia) -> BytePlaces:
        """Return the path of a row's bytes."""
        folder = _folder(media.filesystem_id)
        if folder is None:
            return BytePlaces(media, None, f"{media.filesystem_id!r} is not the hash of any content")
        return BytePlaces(media, f"{folder}/file")

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over the thumbnails of one piece of media."""
        query = select(_THUMBNAILS, _THUMBNAIL_COLUMNS, _BY_ADDRESS)
        for row in await self.database.rows(query, media.server_name, media.media_id):
            yield source_thumbnail(media, Values(row), _THUMBNAIL_NAMES, filesystem_id=media.filesystem_id)

    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Return a thumbnail's path, beside its original."""
        folder = _folder(thumbnail.filesystem_id)
        if folder is None or not _METHOD.fullmatch(thumbnail.method):
            return []
        return [f"{folder}/thumbnail-{thumbnail.width}x{thumbnail.height}-{thumbnail.method}"]


def _folder(base64hash: str | None) -> str | None:
    if base64hash is None or not _HASH.fullmatch(base64hash):
        return None
    return f"{base64hash[0]}/{base64hash[1]}/{base64hash[2:]}"


def _sha256(base64hash: str | None) -> bytes | None:
    if base64hash is None or not _HASH.fullmatch(base64hash):
        return None
    try:
        return base64.urlsafe_b64decode(f"{base64hash}=")
    except binascii.Error:
        return None
