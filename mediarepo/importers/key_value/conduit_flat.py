"""Reads Conduit before database version 17 and its forks: one folder whose file names hold the metadata."""

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from mediarepo.importers.errors import SourceError
from mediarepo.importers.key_value.indexed import IndexedSource, MediaKey, parse_encoded_key
from mediarepo.importers.readers.merge_join import BytePlaces
from mediarepo.importers.readers.source_base import check_byte_sources, wall_clock_ms
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.model.import_source import SAMPLES, MediaKind, PreflightReport, SourceKey, SourceMedia, SourceThumbnail

_CLOCK_TICK_MS = 2_000
"""A folder that changed so lately may change again without its time telling so."""


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    key: MediaKey
    size_bytes: int
    modified_ts: int


class FlatConduitSource(IndexedSource):
    """A Source without a database: uploaders are unknown, times are those of the files."""

    def __init__(
        self,
        folder: Path,
        server_name: str,
        *,
        name: str = "conduit",
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        super().__init__(name, None, [FolderByteSource("media", folder, follow_links=follow_links)], now_ms=now_ms)
        self._folder = folder
        self._server_name = server_name
        self._lock = Lock()
        self._index: dict[SourceKey, _File] = {}
        self._index_ns: int | None = None

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:  # noqa: ARG002 - nothing can be tried
        """Check the folder."""
        findings = PreflightReport(facts=[f"the server name is {self._server_name}"])
        await check_byte_sources(self.byte_sources, findings)
        if not findings.usable:
            return findings
        files = await asyncio.to_thread(self._files)
        media = [self._media(file) for file in files if file.key.is_original]
        for kind in (MediaKind.LOCAL, MediaKind.REMOTE):
            of_kind = [one for one in media if one.kind is kind]
            findings.counts[kind] = len(of_kind)
            findings.bytes[kind] = sum(one.size_bytes or 0 for one in of_kind)
        if not files:
            findings.problems.append(f"{self._folder} has no file whose name is Conduit's")
        elif not findings.counts[MediaKind.LOCAL]:
            findings.problems.append(f"no media belong to {self._server_name}: the name must be wrong")
        return findings

    async def read_all(self) -> list[SourceMedia]:
        """Read the names of all files."""
        files = await asyncio.to_thread(self._files)
        return list({one.key: one for one in (self._media(file) for file in files if file.key.is_original)}.values())

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now; clients may ask for many that do not exist."""
        file = await asyncio.to_thread(self._indexed, SourceKey(server_name, media_id))
        return None if file is None else self._media(file)

    def _indexed(self, wanted: SourceKey) -> _File | None:
        """Find a file, reading the folder again only when its time tells of a change, or could not tell of one."""
        with self._lock:
            try:
                changed_ns = self._folder.stat().st_mtime_ns
                if changed_ns != self._index_ns:
                    files = self._files()
                    self._index = {
                        SourceKey(one.key.server_name, one.key.media_id): one for one in files if one.key.is_original
                    }
                    may_change_unseen = self._now_ms() - changed_ns // 1_000_000 < _CLOCK_TICK_MS
                    self._index_ns = None if may_change_unseen else changed_ns
                file = self._index.get(wanted)
                if file is None:
                    return None
                status = (self._folder / file.name).stat()
            except FileNotFoundError as exc:
                if self._folder.is_dir():
                    return None
                raise SourceError(f"{self._folder} cannot be read: {exc.strerror}") from exc
            except OSError as exc:
                raise SourceError(f"{self._folder} cannot be read: {exc.strerror}") from exc
        return replace(file, size_bytes=status.st_size, modified_ts=status.st_mtime_ns // 1_000_000)

    async def other_paths(self) -> Collection[str]:
        """Return the file names of thumbnails."""
        return {file.name for file in await asyncio.to_thread(self._files) if not file.key.is_original}

    async def known_thumbnails(self, media: SourceMedia) -> Sequence[SourceThumbnail]:
        """Return thumbnails; their method is unknown."""
        files = await asyncio.to_thread(self._files)
        return [
            SourceThumbnail(
                server_name=media.server_name,
                media_id=media.media_id,
                kind=media.kind,
                width=file.key.width,
                height=file.key.height,
                method="",
                content_type=file.key.content_type or "",
                size_bytes=file.size_bytes,
                filesystem_id=file.name,
            )
            for file in files
            if not file.key.is_original and (file.key.server_name, file.key.media_id) == tuple(media.key)
        ]

    def place(self, media: SourceMedia) -> BytePlaces:
        """Return the file that a row was made from."""
        return BytePlaces(media, media.filesystem_id)

    def _files(self) -> list[_File]:
        try:
            return sorted(self._named(), key=lambda file: file.name)
        except OSError as exc:
            raise SourceError(f"{self._folder} cannot be read: {exc.strerror}") from exc

    def _named(self) -> Iterator[_File]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                key = parse_encoded_key(entry.name)
                if key is not None and entry.is_file():
                    status = entry.stat()
                    yield _File(entry.name, key, status.st_size, status.st_mtime_ns // 1_000_000)

    def _media(self, file: _File) -> SourceMedia:
        key = file.key
        return SourceMedia(
            server_name=key.server_name,
            media_id=key.media_id,
            kind=MediaKind.LOCAL if key.server_name == self._server_name else MediaKind.REMOTE,
            content_type=key.content_type,
            size_bytes=file.size_bytes,
            created_ts=file.modified_ts,
            upload_name=key.upload_name,
            filesystem_id=file.name,
        )
