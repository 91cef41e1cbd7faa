"""Reads Conduit: RocksDB or SQLite trees, and files named by content hash."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from mediarepo.importers.errors import SourceConfigError, SourceError
from mediarepo.importers.key_value.indexed import SEPARATOR, IndexedSource, decode, encode, storable
from mediarepo.importers.key_value.rocksdb import ask_families, read_families
from mediarepo.importers.readers.byte_source import ByteSource
from mediarepo.importers.readers.coercion import load_toml, yaml_section, yaml_text
from mediarepo.importers.readers.merge_join import BytePlaces
from mediarepo.importers.readers.source_base import check_byte_sources, probe_originals, wall_clock_ms
from mediarepo.importers.readers.source_bucket import Bucket, BucketAddress, BucketByteSource
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.importers.readers.source_sqlite import SqliteFile
from mediarepo.model.import_source import SAMPLES, MediaKind, PreflightReport, SourceKey, SourceMedia, SourceThumbnail

_DEPTH = _LENGTH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConduitConfig:
    """The settings an import needs; media are in the folder `media_path`, or in a bucket under `prefix`.

    A content's name is split `depth` times after `length` characters; not at all when the depth is 0.
    """

    server_name: str
    database_path: Path
    database_backend: str
    media_path: Path
    bucket: BucketAddress | None = None
    prefix: str = ""
    depth: int = _DEPTH
    length: int = _LENGTH


def load_conduit_config(path: Path, *, base: Path | None = None) -> ConduitConfig:
    """Read conduit.toml; relative paths start at `base`, or at the file's folder.

    Raises SourceConfigError when it cannot be read, or lacks global.server_name or global.database_path.
    """
    base = base or path.parent
    shared = yaml_section(load_toml(path).get("global"), "global")
    media = yaml_section(shared.get("media"), "global.media")
    name, database = yaml_text(shared.get("server_name")), yaml_text(shared.get("database_path"))
    if name is None or database is None:
        raise SourceConfigError(f"{path} lacks global.server_name or global.database_path")
    structure = yaml_section(media.get("directory_structure"), "directory_structure")
    in_bucket = media.get("backend", "filesystem") == "s3"
    folder = yaml_text(media.get("path"))
    return ConduitConfig(
        server_name=name,
        database_path=base / database,
        database_backend=yaml_text(shared.get("database_backend")) or "rocksdb",
        media_path=base / database / "media" if folder is None or in_bucket else base / folder,
        bucket=_bucket(media) if in_bucket else None,
        prefix=f"{folder.strip('/')}/" if in_bucket and folder and folder.strip("/") else "",
        depth=_number(structure.get("depth"), _DEPTH),
        length=_number(structure.get("length"), _LENGTH),
    )


def _bucket(media: dict[str, object]) -> BucketAddress:
    bucket, endpoint = yaml_text(media.get("bucket")), yaml_text(media.get("endpoint"))
    if bucket is None or endpoint is None:
        raise SourceConfigError("global.media has no bucket or no endpoint")
    return BucketAddress(
        bucket=bucket,
        region=yaml_text(media.get("region")),
        endpoint_url=endpoint if "://" in endpoint else f"https://{endpoint}",
        access_key_id=yaml_text(media.get("key")),
        secret_access_key=yaml_text(media.get("secret")),
    )


def _number(value: object, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or value < 0:
        raise SourceConfigError(f"{value!r} is not understood as a number of folders or characters")
    return value


_MEDIA, _CONTENTS, _THUMBNAILS = "servernamemediaid_metadata", "filehash_metadata", "thumbnailid_metadata"
_USERS, _BLOCKED = "servernamemediaid_userlocalpart", "blocked_servername_mediaid"
_HASH_BYTES, _CONTENT_BYTES = 32, 24
_QUARANTINED_BY = "conduit"
Tree = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Described:
    """What a tree's value says: the content's hash, its name and type, and who may have it."""

    sha256: bytes
    upload_name: str | None
    content_type: str | None
    authenticated: bool


@dataclass(frozen=True, slots=True)
class _Content:
    size_bytes: int
    created_ts: int
    last_access_ts: int


class ConduitSource(IndexedSource):
    """A Source for Conduit's database from version 17 on; older ones keep metadata in file names."""

    def __init__(
        self,
        config: ConduitConfig,
        *,
        name: str = "conduit",
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self._file, self._lock = SqliteFile(config.database_path / "conduit.db"), Lock()
        byte_source: ByteSource = FolderByteSource("media", config.media_path, follow_links=follow_links)
        if config.bucket is not None:
            byte_source = BucketByteSource("media", Bucket(config.bucket), prefix=config.prefix)
        super().__init__(name, None, [byte_source], now_ms=now_ms)

    async def __aexit__(self, *details: object) -> None:
        await super().__aexit__(*details)
        self._file.close()

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:
        """Check the trees, the media folder or bucket, and a few originals."""
        findings = PreflightReport(facts=[f"the server name is {self.config.server_name}"])
        await check_byte_sources(self.byte_sources, findings)
        try:
            read = await self.read_all()
            media = [one for one in read if not one.block_only]
            if len(media) < len(read):
                findings.counts["blocked"] = len(read) - len(media)
            findings.warnings += self._file.warnings
            for kind in (MediaKind.LOCAL, MediaKind.REMOTE):
                of_kind = [one for one in media if one.kind is kind]
                findings.counts[kind] = len(of_kind)
                findings.bytes[kind] = sum(one.size_bytes or 0 for one in of_kind)
            if media and not findings.counts[MediaKind.LOCAL]:
                findings.problems.append(f"no media belong to {self.config.server_name}: the name must be wrong")
            if findings.usable:
                await probe_originals(self, self.media(), findings, count=tries)
        except SourceError as exc:
            findings.problems.append(str(exc))
        return findings

    async def read_all(self) -> list[SourceMedia]:
        """Read every row."""
        return self._rows(await asyncio.to_thread(self._read, (_MEDIA, _CONTENTS, _USERS, _BLOCKED)))

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now, by its keys: clients may ask for many that do not exist."""
        rows = await asyncio.to_thread(lambda: self._rows(self._read_about(encode(server_name, media_id))))
        wanted = SourceKey(server_name, media_id)
        return next((media for media in rows if media.key == wanted), None)

    def _read_about(self, key: bytes) -> dict[str, Tree]:
        """Read what makes one row; what else is blocked matters only where there is one."""
        if self.config.database_backend == "rocksdb":
            names = (_MEDIA, _CONTENTS, _USERS, _BLOCKED)
            return ask_families(
                self.config.database_path, names, lambda families: _about(key, families.get, families.all)
            )
        return self._ask(
            lambda connection: _about(key, partial(_read_row, connection), partial(_read_table, connection))
        )

    def _rows(self, trees: Mapping[str, Tree]) -> list[SourceMedia]:
        described = {key: found for key, value in trees[_MEDIA].items() if (found := _describe(value))}
        blocked = {described[key].sha256 for key in trees[_BLOCKED] if key in described}
        media = [
            self._media(key, one, trees, blocked=key in trees[_BLOCKED] or one.sha256 in blocked)
            for key, one in described.items()
        ]
        return media + [block for key in trees[_BLOCKED] if key not in described and (block := self._block(key))]

    def _block(self, key: bytes) -> SourceMedia | None:
        """Make media of an address that is blocked and that Conduit has never fetched, or has purged."""
        server_name, separator, media_id = key.partition(SEPARATOR)
        if not separator:
            return None
        return SourceMedia(
            server_name=decode(server_name),
            media_id=decode(media_id),
            kind=self._kind(decode(server_name)),
            quarantined_by=_QUARANTINED_BY,
            block_only=True,
        )

    def _kind(self, server_name: str) -> MediaKind:
        return MediaKind.LOCAL if server_name == self.config.server_name else MediaKind.REMOTE

    def _read(self, names: Sequence[str]) -> dict[str, Tree]:
        if self.config.database_backend == "rocksdb":
            return read_families(self.config.database_path, names)
        return self._ask(lambda connection: {name: _read_table(connection, name) for name in names})

    def _ask(self, question: Callable[[sqlite3.Connection], dict[str, Tree]]) -> dict[str, Tree]:
        backend = self.config.database_backend
        if backend != "sqlite":
            raise SourceError(f"Conduit's database is {backend}, and only SQLite and RocksDB can be read")
        try:
            with self._lock:
                return self._file.ask(question)
        except sqlite3.Error as exc:
            raise SourceError(f"{self._file.path} cannot be read as a database of Conduit 17 or later: {exc}") from exc

    def _media(self, key: bytes, one: _Described, trees: Mapping[str, Tree], *, blocked: bool) -> SourceMedia:
        server_name, _, media_id = key.partition(SEPARATOR)
        content = _measure(trees[_CONTENTS].get(one.sha256))
        localpart = trees[_USERS].get(key)
        return SourceMedia(
            server_name=decode(server_name),
            media_id=decode(media_id),
            kind=self._kind(decode(server_name)),
            content_type=one.content_type,
            size_bytes=content.size_bytes if content is not None else None,
            created_ts=content.created_ts if content is not None else None,
            upload_name=one.upload_name,
            user_id=f"@{storable(localpart)}:{decode(server_name)}" if localpart else None,
            last_access_ts=content.last_access_ts if content is not None else None,
            quarantined_by=_QUARANTINED_BY if blocked else None,
            authenticated=one.authenticated,
            sha256=one.sha256,
            filesystem_id=self._path(one.sha256),
        )

    def place(self, media: SourceMedia) -> BytePlaces:
        """Return the path of a row's bytes; None for a block."""
        return BytePlaces(media, media.filesystem_id, "blocked, and not kept" if media.block_only else None)

    def _path(self, sha256: bytes) -> str:
        digits, length = sha256.hex(), self.config.length
        cuts = [digits[start * length : (start + 1) * length] for start in range(self.config.depth)]
        return "/".join([*cuts, digits[self.config.depth * length :]])

    async def other_paths(self) -> Collection[str]:
        """Return the paths of thumbnails."""
        trees = await asyncio.to_thread(self._read, (_THUMBNAILS,))
        return {self._path(one.sha256) for value in trees[_THUMBNAILS].values() if (one := _describe(value))}

    async def known_thumbnails(self, media: SourceMedia) -> Sequence[SourceThumbnail]:
        """Return thumbnails; their method is unknown."""
        trees = await asyncio.to_thread(self._read, (_THUMBNAILS, _CONTENTS))
        start = encode(*media.key) + SEPARATOR
        found = []
        for key, value in sorted(trees[_THUMBNAILS].items()):
            one = _describe(value)
            if one is None or not key.startswith(start) or len(key) != len(start) + 8:
                continue
            content = _measure(trees[_CONTENTS].get(one.sha256))
            found.append(self._thumbnail(media, key[len(start) :], one, content))
        return found

    def _thumbnail(self, media: SourceMedia, size: bytes, one: _Described, content: _Content | None) -> SourceThumbnail:
        return SourceThumbnail(
            server_name=media.server_name,
            media_id=media.media_id,
            kind=media.kind,
            width=int.from_bytes(size[:4], "big"),
            height=int.from_bytes(size[4:], "big"),
            method="",
            content_type=one.content_type or "",
            size_bytes=content.size_bytes if content is not None else None,
            filesystem_id=self._path(one.sha256),
        )


def _about(key: bytes, get: Callable[[str, bytes], Tree], everything: Callable[[str], Tree]) -> dict[str, Tree]:
    """Read the rows about one address, and those of blocked ones, whose contents are blocked with them."""
    media, blocked = dict(get(_MEDIA, key)), dict(get(_BLOCKED, key))
    contents: dict[bytes, bytes] = {}
    described = [one for value in media.values() if (one := _describe(value))]
    for one in described:
        contents.update(get(_CONTENTS, one.sha256))
    if described:
        blocked = dict(everything(_BLOCKED))
        for other in blocked:
            media.update(get(_MEDIA, other))
    return {_MEDIA: media, _CONTENTS: contents, _USERS: get(_USERS, key) if described else {}, _BLOCKED: blocked}


def _read_row(connection: sqlite3.Connection, name: str, key: bytes) -> Tree:
    query = f"SELECT key, value FROM {name} WHERE key = ?"
    return {bytes(key): bytes(value) for key, value in connection.execute(query, (key,))}


def _read_table(connection: sqlite3.Connection, name: str) -> Tree:
    query = f"SELECT key, value FROM {name}"
    return {bytes(key): bytes(value) for key, value in connection.execute(query)}


def _describe(value: bytes) -> _Described | None:
    """Take the hash off first: it may contain the byte that parts the rest."""
    if len(value) < _HASH_BYTES:
        return None
    name, _, rest = value[_HASH_BYTES:].partition(SEPARATOR)
    content_type, open_to_all, _ = rest.partition(SEPARATOR)
    return _Described(value[:_HASH_BYTES], storable(name) or None, storable(content_type) or None, not open_to_all)


def _measure(value: bytes | None) -> _Content | None:
    if value is None or len(value) < _CONTENT_BYTES:
        return None
    size, created, accessed = (int.from_bytes(value[start : start + 8], "big") for start in (0, 8, 16))
    return _Content(size, created * 1000, accessed * 1000)
