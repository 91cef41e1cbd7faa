"""Reads Tuwunel and its forks: metadata in keys, and files named by key hash."""

import asyncio
import base64
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mediarepo.importers.errors import SourceConfigError, SourceError
from mediarepo.importers.key_value.indexed import (
    SEPARATOR,
    IndexedSource,
    MediaKey,
    decode,
    encode,
    parse_media_key,
    storable,
)
from mediarepo.importers.key_value.rocksdb import Families, ask_families, read_families
from mediarepo.importers.readers.coercion import load_toml, yaml_section, yaml_text
from mediarepo.importers.readers.merge_join import BytePlaces
from mediarepo.importers.readers.source_base import check_byte_sources, probe_originals, wall_clock_ms
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.model.import_source import SAMPLES, MediaKind, PreflightReport, SourceKey, SourceMedia, SourceThumbnail

_FILES, _USERS, _PENDING = "mediaid_file", "mediaid_user", "mediaid_pending"
_EXPIRY_BYTES = 8
_MOST_KEYS = 1_000
"""So many keys about one address are looked at; more than a few sizes of thumbnails are never asked for."""
Tree = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class TuwunelConfig:
    """The settings of tuwunel.toml an import needs; `providers` configure other media storage than its folder.

    `denied_servers` are patterns of servers whose media are not served.
    """

    server_name: str
    database_path: Path
    media_path: Path
    providers: tuple[str, ...] = ()
    denied_servers: tuple[str, ...] = ()


def load_tuwunel_config(path: Path, *, base: Path | None = None) -> TuwunelConfig:
    """Read tuwunel.toml; relative paths start at `base`, or at the file's folder.

    Raises SourceConfigError when it cannot be read, or lacks global.server_name or global.database_path.
    """
    shared = yaml_section(load_toml(path).get("global"), "global")
    name, database = yaml_text(shared.get("server_name")), yaml_text(shared.get("database_path"))
    if name is None or database is None:
        raise SourceConfigError(f"{path} lacks global.server_name or global.database_path")
    folder = (base or path.parent) / database
    providers = tuple(sorted(key for key in shared if "storage_provider" in key))
    denied = shared.get("prevent_media_downloads_from")
    denied_servers = tuple(map(str, denied)) if isinstance(denied, list) else ()
    return TuwunelConfig(name, folder, folder / "media", providers, denied_servers)


class TuwunelSource(IndexedSource):
    """A Source for media in Tuwunel's own folder; its buckets are not read. Times are those of the files."""

    def __init__(
        self,
        config: TuwunelConfig,
        *,
        name: str = "tuwunel",
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        byte_source = FolderByteSource("media", config.media_path, follow_links=follow_links)
        super().__init__(name, None, [byte_source], now_ms=now_ms)

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:
        """Check the database, the folder, and a few originals."""
        findings = PreflightReport(facts=[f"the server name is {self.config.server_name}"])
        if self.config.denied_servers:
            names = ", ".join(self.config.denied_servers)
            findings.warnings.append(f"media of {names} are denied: list them under remote_media.deny_server_names")
        for setting in self.config.providers:
            findings.warnings.append(f"{setting} is not supported: media in a bucket only will be missing")
        await check_byte_sources(self.byte_sources, findings)
        try:
            media = await self.read_all()
            for kind in (MediaKind.LOCAL, MediaKind.REMOTE):
                findings.counts[kind] = sum(one.kind is kind for one in media)
            findings.counts["pending"] = sum(one.pending for one in media)
            if findings.usable:
                await probe_originals(self, self.media(), findings, count=tries)
        except SourceError as exc:
            findings.problems.append(str(exc))
        return findings

    async def read_all(self) -> list[SourceMedia]:
        """Read every row; of several with one address, the one whose file exists."""
        trees = await asyncio.to_thread(read_families, self.config.database_path, (_FILES, _USERS, _PENDING))
        files = await asyncio.to_thread(self._files)
        return self._rows(trees, files)

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now, by its keys: clients may ask for many that do not exist."""
        address = b"mxc://%s/%s" % (encode(server_name), encode(media_id))

        def about(families: Families) -> dict[str, Tree]:
            return {
                _FILES: families.with_prefix(_FILES, address + SEPARATOR, at_most=_MOST_KEYS),
                _USERS: families.with_prefix(_USERS, address + SEPARATOR, at_most=_MOST_KEYS),
                _PENDING: families.get(_PENDING, address),
            }

        def look() -> list[SourceMedia]:
            trees = ask_families(self.config.database_path, (_FILES, _USERS, _PENDING), about)
            return self._rows(trees, self._some_files(trees[_FILES]))

        wanted = SourceKey(server_name, media_id)
        return next((media for media in await asyncio.to_thread(look) if media.key == wanted), None)

    def _rows(self, trees: Mapping[str, Tree], files: Mapping[str, int]) -> list[SourceMedia]:
        users = {key.partition(SEPARATOR)[0]: storable(user) for key, user in trees[_USERS].items()}
        found: dict[tuple[str, str], SourceMedia] = {}
        for encoded in sorted(trees[_FILES]):
            key = parse_media_key(encoded)
            if key is None or not key.is_original:
                continue
            media = self._media(key, _name_of(encoded, files), users, files)
            if media.key not in found or media.filesystem_id in files:
                found[media.key] = media
        for address, value in trees[_PENDING].items():
            pending = self._announced(address, value)
            if pending is not None:
                found.setdefault(pending.key, pending)
        return list(found.values())

    def _media(self, key: MediaKey, name: str, users: Mapping[bytes, str], files: Mapping[str, int]) -> SourceMedia:
        address = f"mxc://{key.server_name}/{key.media_id}".encode(errors="surrogateescape")
        return SourceMedia(
            server_name=key.server_name,
            media_id=key.media_id,
            kind=self._kind(key.server_name),
            content_type=key.content_type,
            created_ts=files.get(name),
            upload_name=key.upload_name,
            user_id=users.get(address) or None if self._kind(key.server_name) is MediaKind.LOCAL else None,
            filesystem_id=name,
        )

    def _announced(self, address: bytes, value: bytes) -> SourceMedia | None:
        server_name, slash, media_id = address.removeprefix(b"mxc://").partition(b"/")
        if not slash or len(value) < _EXPIRY_BYTES:
            return None
        return SourceMedia(
            server_name=decode(server_name),
            media_id=decode(media_id),
            kind=self._kind(decode(server_name)),
            user_id=storable(value[_EXPIRY_BYTES:]).strip() or None,
            pending=True,
            expires_ts=int.from_bytes(value[:_EXPIRY_BYTES], "big"),
        )

    def _kind(self, server_name: str) -> MediaKind:
        return MediaKind.LOCAL if server_name == self.config.server_name else MediaKind.REMOTE

    def _files(self) -> dict[str, int]:
        """List the folder: the time of each file, in ms."""
        try:
            with os.scandir(self.config.media_path) as entries:
                return {entry.name: entry.stat().st_mtime_ns // 1_000_000 for entry in entries if entry.is_file()}
        except OSError as exc:
            raise SourceError(f"{self.config.media_path} cannot be read: {exc.strerror}") from exc

    def _some_files(self, keys: Collection[bytes]) -> dict[str, int]:
        """Look for the files of keys alone, as `_files` does."""
        found = {}
        for name in (name for key in keys for name in _names_of(key)):
            try:
                status = (self.config.media_path / name).stat()
            except OSError as exc:
                if exc.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
                    continue
                raise SourceError(f"{self.config.media_path} cannot be read: {exc.strerror}") from exc
            if stat.S_ISREG(status.st_mode):
                found[name] = status.st_mtime_ns // 1_000_000
        return found

    def place(self, media: SourceMedia) -> BytePlaces:
        """Return the file of a row's bytes."""
        return BytePlaces(media, media.filesystem_id or "")

    async def other_paths(self) -> Collection[str]:
        """Return the file names of thumbnails."""
        trees = await asyncio.to_thread(read_families, self.config.database_path, (_FILES,))
        files = await asyncio.to_thread(self._files)
        keys = [(encoded, parse_media_key(encoded)) for encoded in trees[_FILES]]
        return {_name_of(encoded, files) for encoded, key in keys if key is not None and not key.is_original}

    async def known_thumbnails(self, media: SourceMedia) -> Sequence[SourceThumbnail]:
        """Return thumbnails; their method is unknown."""
        trees = await asyncio.to_thread(read_families, self.config.database_path, (_FILES,))
        files = await asyncio.to_thread(self._files)
        keys = [(encoded, parse_media_key(encoded)) for encoded in sorted(trees[_FILES])]
        return [
            SourceThumbnail(
                server_name=media.server_name,
                media_id=media.media_id,
                kind=media.kind,
                width=key.width,
                height=key.height,
                method="",
                content_type=key.content_type or "",
                filesystem_id=_name_of(encoded, files),
            )
            for encoded, key in keys
            if key is not None and not key.is_original and (key.server_name, key.media_id) == tuple(media.key)
        ]


def _name_of(encoded: bytes, files: Collection[str]) -> str:
    """Name a key's file: today by the key's hash, in older installations by the key itself."""
    name, old = _names_of(encoded)
    return old if name not in files and old in files else name


def _names_of(encoded: bytes) -> tuple[str, str]:
    digest = hashlib.sha256(encoded).digest()
    name, old = (base64.urlsafe_b64encode(value).decode("ascii").rstrip("=") for value in (digest, encoded))
    return name, old
