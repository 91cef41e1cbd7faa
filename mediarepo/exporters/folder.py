"""A folder in which files appear only when they are complete."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Self

from mediarepo.exporters.destination import ExportError, FoundBytes

_PIECE_BYTES = 1024 * 1024
_NAME_BYTES = 8


class FolderPlace:
    """Files under one folder, which nobody else exports to meanwhile.

    What root writes belongs to the owner of the folder afterwards, so that a server can read it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = str(folder)
        self._lock: int | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise ExportError(f"{self.folder} cannot be used: {exc.strerror}") from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ExportError(f"another export is writing to {self.folder}") from exc
        except OSError as exc:
            raise ExportError(f"{self.folder} cannot be locked: {exc.strerror}") from exc

    async def find(self, path: str) -> FoundBytes | None:
        """Read a file."""
        return await asyncio.to_thread(_hash, self.folder / path)

    @asynccontextmanager
    async def writing(self, path: str, *, size_bytes: int) -> AsyncIterator["FileWriting"]:  # noqa: ARG002 - a folder need not know
        """Write a file under another name, until it is whole."""
        writing = await asyncio.to_thread(FileWriting, self.folder, self.folder / path)
        try:
            yield writing
        finally:
            await asyncio.to_thread(writing.drop)

    async def replace(self, path: str, content: IO[bytes]) -> None:
        """Write a file of our own, in the place of an older one."""
        async with self.writing(path, size_bytes=0) as writing:
            while data := await asyncio.to_thread(content.read, _PIECE_BYTES):
                await writing.write(data)
            await writing.finish()


class FileWriting:
    """A file under another name, which is always the same, so that leftovers are overwritten."""

    def __init__(self, folder: Path, path: Path) -> None:
        name = hashlib.blake2b(path.name.encode(), digest_size=_NAME_BYTES).hexdigest()
        self._path, self._partial = path, path.with_name(f".partial-{name}")
        self._owner = folder.stat() if os.geteuid() == 0 else None
        self._make_folders(folder)
        self._file: IO[bytes] | None = self._partial.open("wb", buffering=0)
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0

    def _make_folders(self, folder: Path) -> None:
        missing = [one for one in self._path.parents if one.is_relative_to(folder) and not one.exists()]
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            self._give_away(one)

    def _give_away(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, self._owner.st_uid, self._owner.st_gid)

    async def write(self, data: bytes) -> None:
        """Take one piece."""
        self._pieces.append(bytes(data))
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _PIECE_BYTES:
            await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        rest = memoryview(b"".join(self._pieces))
        self._pieces, self._waiting_bytes = [], 0
        while rest and self._file is not None:
            rest = rest[self._file.write(rest) :]

    async def finish(self) -> None:
        """Make the file durable, and give it its name."""
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        if self._file is None:
            return
        self._flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        self._give_away(self._partial)
        self._partial.rename(self._path)
        _sync_folder(self._path.parent)

    def drop(self) -> None:
        """Remove what never became whole."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(path: Path) -> FoundBytes | None:
    sha256, size_bytes = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(_PIECE_BYTES):
                sha256.update(data)
                size_bytes += len(data)
    except FileNotFoundError:
        return None
    return FoundBytes(size_bytes, sha256.digest())
