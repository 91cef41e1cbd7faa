"""A source's folder; no path leads out of it."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mediarepo.importers.errors import BytesVanishedError, SourceError
from mediarepo.importers.readers.byte_source import ListedFile, SourceProblem
from mediarepo.model.import_source import FileBytes, ResolutionState, SourceBytes

PIECE_BYTES = 256 * 1024
_BATCH = 1000
_MAX_NOTES = 100
_MAX_DEPTH = 8  # deeper than any layout; links within a folder may form a circle
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


class FolderByteSource:
    """Files below a folder; symbolic links that lead out of it are followed only with `follow_links`."""

    has_costly_looks = False

    def __init__(self, name: str, folder: Path, *, follow_links: bool = False) -> None:
        self.name = name
        self.words = f"the folder {folder}"
        self.notes: list[str] = []
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links are judged later, one by one
        self._follow_links = follow_links
        self._root: Path | None = None

    async def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    async def check(self) -> str | None:
        """Return why the folder cannot be read; None when it can."""
        try:
            await asyncio.to_thread(os.listdir, self._folder)
        except OSError as exc:
            return f"{self.words} cannot be read: {exc.strerror}"
        return None

    async def find(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up a file."""
        return await asyncio.to_thread(self._find, path)

    async def find_near(self, path: str) -> SourceBytes | SourceProblem | None:
        """Look up a file."""
        return await self.find(path)

    def _find(self, path: str) -> FileBytes | SourceProblem | None:
        whole = self._folder / path
        if os.path.normpath(whole) != str(whole) or not whole.is_relative_to(self._folder) or "\0" in path:
            return SourceProblem(ResolutionState.UNSAFE, f"{path!r} leads out of {self._folder}")
        try:
            status = whole.stat()
            reason = self._refusal(whole)
        except OSError as exc:
            return self._failure(whole, exc)
        if reason is not None:
            return SourceProblem(ResolutionState.UNSAFE, reason)
        if not stat.S_ISREG(status.st_mode):
            return SourceProblem(ResolutionState.UNREADABLE, f"{whole} is a folder or a device, not a file")
        if not os.access(whole, os.R_OK):
            return SourceProblem(ResolutionState.UNREADABLE, f"{whole} may not be read")
        return FileBytes(self.name, whole, status.st_size)

    def _failure(self, whole: Path, exc: OSError) -> SourceProblem | None:
        """Tell absence from trouble: in a folder that is not there (not mounted), nothing is known to be missing."""
        if exc.errno not in _ABSENT:
            return SourceProblem(ResolutionState.UNREADABLE, f"{whole} cannot be read: {exc.strerror}")
        if not self._folder.is_dir():
            return SourceProblem(ResolutionState.UNREADABLE, f"{self.words} is not there")
        if exc.errno != errno.ENAMETOOLONG and whole.is_symlink():
            return SourceProblem(ResolutionState.UNREADABLE, f"{whole} is a symbolic link to nothing")
        return None

    def _refusal(self, whole: Path) -> str | None:
        if self._root is None:
            self._root = self._folder.resolve(strict=True)
        if self._follow_links or whole.resolve(strict=True).is_relative_to(self._root):
            return None
        return f"{whole} is a symbolic link out of {self._folder}; allow links if that is meant"

    async def walk(self, under: str) -> AsyncGenerator[ListedFile, None]:
        """Iterate over files, a thousand at a time."""
        files = self._files(self._folder / under, under, _MAX_DEPTH)
        while batch := await asyncio.to_thread(lambda: list(islice(files, _BATCH))):
            for listed in batch:
                yield listed

    def _files(self, folder: Path, path: str, depth: int) -> Iterator[ListedFile]:
        for name, entry in self._entries(folder):
            if name.endswith(b"/"):
                if depth:
                    yield from self._files(Path(entry.path), f"{path}{entry.name}/", depth - 1)
                continue
            try:
                status = entry.stat()
            except OSError as exc:
                self._note(f"{entry.path}: {exc.strerror}")
                continue
            if stat.S_ISREG(status.st_mode):
                found = FileBytes(self.name, Path(entry.path), status.st_size)
                yield ListedFile(f"{path}{entry.name}", found, status.st_mtime_ns // 1_000_000)

    def _entries(self, folder: Path) -> list[tuple[bytes, os.DirEntry[str]]]:
        """List a folder in the order of whole paths, in which a folder's name ends with its slash."""
        try:
            with os.scandir(folder) as entries:
                return sorted(
                    ((self._sort_name(entry), entry) for entry in entries if self._may_enter(entry)),
                    key=lambda pair: pair[0],
                )
        except FileNotFoundError:
            return []
        except OSError as exc:
            self._note(f"{folder} cannot be listed: {exc.strerror}")
            return []

    @staticmethod
    def _sort_name(entry: os.DirEntry[str]) -> bytes:
        return os.fsencode(entry.name) + (b"/" if entry.is_dir() else b"")

    def _may_enter(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return True
        try:
            reason = self._refusal(Path(entry.path))
        except (OSError, RuntimeError) as exc:  # a loop of links is a RuntimeError until Python 3.13
            reason = f"{entry.path}: {exc}"
        if reason is not None:
            self._note(reason)
        return reason is None

    def _note(self, words: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(words)

    async def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read a file in pieces.

        Raises BytesVanishedError when it is not as long as it was, SourceError when it is no file.
        """
        if not isinstance(found, FileBytes):
            raise SourceError(f"{found} is no file")
        file = await asyncio.to_thread(self._open, found)
        try:
            read = 0
            while piece := await asyncio.to_thread(_read, file, found):
                read += len(piece)
                yield piece
            if read != found.size_bytes:
                raise BytesVanishedError(f"{found.path} had {found.size_bytes} bytes, and {read} could be read")
        finally:
            file.close()

    async def read(self, found: SourceBytes) -> bytes:
        """Read a small file in one piece, at a third of the cost. Raises SourceError when `found` is no file."""
        if not isinstance(found, FileBytes):
            raise SourceError(f"{found} is no file")
        return await asyncio.to_thread(self._read_whole, found)

    def _read_whole(self, found: FileBytes) -> bytes:
        with self._open(found) as file:
            data = _read(file, found, found.size_bytes + 1)
        if len(data) != found.size_bytes:
            raise BytesVanishedError(f"{found.path} had {found.size_bytes} bytes, and {len(data)} could be read")
        return data

    def _open(self, found: FileBytes) -> BinaryIO:
        """Open a file, and judge what was opened, so that nothing can be put in its place between the two."""
        try:
            descriptor = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise self._refused(found) or SourceError(f"{found.path} cannot be read: {exc.strerror}") from exc
        file = os.fdopen(descriptor, "rb", buffering=0)
        try:
            refusal = self._judge(descriptor, found)
        except OSError as exc:
            refusal = SourceError(f"{found.path} cannot be read: {exc.strerror}")
        if refusal is not None:
            file.close()
            raise refusal
        return file

    def _judge(self, descriptor: int, found: FileBytes) -> SourceError | None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size == found.size_bytes and self._is_inside(descriptor):
            return None
        return self._refused(found) or BytesVanishedError(f"{found.path} is not what it was any more")

    def _is_inside(self, descriptor: int) -> bool:
        """Say whether an open file lies in the folder, whatever links led there."""
        if self._follow_links:
            return True
        if self._root is None:
            self._root = self._folder.resolve(strict=True)
        return Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(self._root)

    def _refused(self, found: FileBytes) -> SourceError | None:
        """Say in words why a file is not what was found."""
        now = self._find(os.path.relpath(found.path, self._folder))
        if isinstance(now, SourceProblem):
            return SourceError(now.words)
        if now is None:
            return BytesVanishedError(f"{found.path} is gone")
        if now.size_bytes != found.size_bytes:
            return BytesVanishedError(f"{found.path} had {found.size_bytes} bytes and has {now.size_bytes} now")
        return None


def _read(file: BinaryIO, found: FileBytes, size_bytes: int = PIECE_BYTES) -> bytes:
    try:
        return file.read(size_bytes) or b""
    except OSError as exc:
        raise SourceError(f"{found.path} cannot be read: {exc.strerror}") from exc
