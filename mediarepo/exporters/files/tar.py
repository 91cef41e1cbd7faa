"""An archive as one tar stream, to a file or to standard output."""

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Self

from mediarepo.exporters.destination import ExportError, FoundBytes, Writing
from mediarepo.exporters.files.archive import ABOUT, Lists, add_lists, describe

_IN_MEMORY_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_BLOCK_BYTES = tarfile.BLOCKSIZE


class TarArchive:
    """Members in whatever order they are read; the lists come last.

    A small member is written when it is whole and right. A large one is written as it comes: should its hash turn out
    to be wrong, it stays in the archive, and the lists do not name it.
    """

    def __init__(self, path: Path | None, *, output: IO[bytes], now_s: int) -> None:
        self.words = "standard output" if path is None else str(path)
        self._path, self._output, self._now_s = path, output, now_s
        self._partial = None if path is None else path.with_name(f".{path.name}.partial")
        self._lock = asyncio.Lock()
        self._whole = False

    async def __aenter__(self) -> Self:
        if self._partial is not None:
            try:
                self._output = await asyncio.to_thread(self._partial.open, "wb")
            except OSError as exc:
                raise ExportError(f"{self.words} cannot be written: {exc.strerror}") from exc
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._path is None or self._partial is None:
            return
        self._output.close()
        if self._whole:
            self._partial.rename(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    async def begin(self, about: Mapping[str, object]) -> None:
        """Say what goes in."""
        await self.replace(ABOUT, BytesIO(describe(about)))

    async def find(self, path: str) -> FoundBytes | None:  # noqa: ARG002 - a stream begins empty
        """Know of nothing."""
        return None

    @asynccontextmanager
    async def writing(self, path: str, *, size_bytes: int) -> AsyncIterator[Writing]:
        """Write a member: at its end, if it is small, or from its first byte on as it comes."""
        if size_bytes <= _IN_MEMORY_BYTES:
            kept = _KeptMember()
            yield kept
            if kept.finished:
                await self._put_member(path, kept.pieces)
            return
        async with self._lock:
            member = _Member(self, path, size_bytes)
            try:
                yield member
            except Exception as exc:
                if 0 < member.written_bytes < size_bytes:
                    raise ExportError(f"{self.words} was cut short within {path}: begin again") from exc
                raise
            finally:
                if member.written_bytes == size_bytes:
                    await self._pad(size_bytes)

    async def replace(self, path: str, content: IO[bytes]) -> None:
        """Write a file of ours."""
        size_bytes = content.seek(0, os.SEEK_END)
        content.seek(0)
        async with self._lock:
            await self.head(path, size_bytes)
            while data := await asyncio.to_thread(content.read, _PIECE_BYTES):
                await self.put(data)
            await self._pad(size_bytes)

    async def close_with(self, lists: Lists) -> None:
        """Add the lists, and the end."""
        await add_lists(self, lists)
        await self.put(bytes(2 * _BLOCK_BYTES))
        await asyncio.to_thread(self._flush)
        self._whole = True

    def _flush(self) -> None:
        self._output.flush()
        if self._path is not None:
            os.fsync(self._output.fileno())

    async def _put_member(self, path: str, pieces: list[bytes]) -> None:
        content = b"".join(pieces)
        async with self._lock:
            await self.head(path, len(content))
            await self.put(content)
            await self._pad(len(content))

    async def head(self, path: str, size_bytes: int) -> None:
        """Begin a member."""
        info = tarfile.TarInfo(path)
        info.size, info.mtime, info.mode = size_bytes, self._now_s, 0o644
        await self.put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))

    async def _pad(self, size_bytes: int) -> None:
        await self.put(bytes(-size_bytes % _BLOCK_BYTES))

    async def put(self, data: bytes) -> None:
        """Write on."""
        await asyncio.to_thread(self._output.write, data)


class _KeptMember:
    """Bytes of a member that is written when it is whole and right."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.finished = False

    async def write(self, data: bytes) -> None:
        self.pieces.append(bytes(data))

    async def finish(self) -> None:
        self.finished = True


class _Member:
    """Bytes of a member that are written as they come."""

    def __init__(self, archive: TarArchive, path: str, size_bytes: int) -> None:
        self.written_bytes = 0
        self._archive, self._path, self._size_bytes = archive, path, size_bytes

    async def write(self, data: bytes) -> None:
        if not self.written_bytes:
            await self._archive.head(self._path, self._size_bytes)
        await self._archive.put(bytes(data))
        self.written_bytes += len(data)

    async def finish(self) -> None:
        """Have been written already."""
