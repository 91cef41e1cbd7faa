"""Export destinations: folders and buckets in which files appear only when they are complete."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

from mediarepo.config.storage import StoreConfig
from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.readers.source_bucket import BucketAddress, store_config
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.store import Store


class ExportError(Exception):
    """The export cannot start or continue; the message says why."""


class RowRefusedError(Exception):
    """The database rejects this row; the message says why."""


class RowAppearedError(Exception):
    """Another process wrote the row meanwhile; read it again."""


@dataclass(frozen=True, slots=True)
class FoundBytes:
    """Size and hash of a file that exists already."""

    size_bytes: int
    sha256: bytes


class OpenWrite(Protocol):
    """Bytes being written to a path; nothing appears there before `finish`, and without it they are dropped."""

    async def write(self, data: bytes, /) -> None:
        """Write one piece."""
        ...

    async def finish(self) -> None:
        """Make the bytes appear at their path, durably."""
        ...


class BytesPlace(Protocol):
    """A folder, bucket or archive; open it with `async with`. Existing files are never overwritten."""

    async def find(self, path: str) -> FoundBytes | None:
        """Return what exists at a path; None when nothing does."""
        ...

    def writing(self, path: str, *, size_bytes: int) -> AbstractAsyncContextManager[OpenWrite]:
        """Begin to write `size_bytes` bytes to a path where nothing exists."""
        ...


_PIECE_BYTES = 1024 * 1024
_NAME_BYTES = 8


class FolderPlace:
    """Files below one folder, which no other process exports to meanwhile.

    Files written by root are given to the owner of the folder, so that a server can read them.
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
    async def writing(self, path: str, *, size_bytes: int) -> AsyncIterator["FileWriter"]:  # noqa: ARG002 - a folder need not know
        """Write a file under a temporary name until it is complete."""
        writing = await asyncio.to_thread(FileWriter, self.folder, self.folder / path)
        try:
            yield writing
        finally:
            await asyncio.to_thread(writing.drop)

    async def replace(self, path: str, content: IO[bytes]) -> None:
        """Write one of our own files, replacing an older one."""
        async with self.writing(path, size_bytes=0) as writing:
            while data := await asyncio.to_thread(content.read, _PIECE_BYTES):
                await writing.write(data)
            await writing.finish()


class FileWriter:
    """A file under a temporary name, always the same one, so that leftovers are overwritten."""

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
        """Write one piece."""
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
        """Sync the file, and rename it to its final name."""
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
        """Remove the incomplete file."""
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


_PART_BYTES = 8 * 1024 * 1024


class _WholeBucket(Store):
    """A store whose keys begin with anything."""

    def holds(self, object_key: str) -> bool:
        """Take every key."""
        return bool(object_key)


class BucketPlace:
    """Objects of a bucket; a key is `prefix` and the path, with no slash added."""

    def __init__(self, address: BucketAddress, *, prefix: str) -> None:
        self.words = f"the bucket {address.bucket} under {prefix!r}"
        self._store = _WholeBucket("target", _store_config(address))
        self._prefix = prefix

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._store.__aexit__(*exc_info)

    async def find(self, path: str) -> FoundBytes | None:
        """Return the object's size and hash; None when there is none."""
        key = self._prefix + path
        async for listed in self._store.list(key):
            if listed.key != key:
                return None
            hashing = _Hashing()
            try:
                async with self._store.open(key) as stored:
                    await stored.send_to(hashing)
            except ObjectMissingError:
                return None
            return FoundBytes(listed.size_bytes, hashing.sha256.digest())
        return None

    @asynccontextmanager
    async def writing(self, path: str, *, size_bytes: int) -> AsyncIterator["ObjectWriter"]:  # noqa: ARG002 - counted instead
        """Write an object in one request, or as a multipart upload."""
        writing = ObjectWriter(self._store, self._prefix + path)
        try:
            yield writing
        finally:
            await writing.drop()


class ObjectWriter:
    """An object whose bytes are in memory, or in S3 as parts of 8 MiB, as Synapse's storage provider would."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._upload_id: str | None = None
        self._etags: list[str] = []
        self._waiting = bytearray()
        self._size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Write one piece."""
        self._waiting += data
        self._size_bytes += len(data)
        while len(self._waiting) > _PART_BYTES:
            part = bytes(memoryview(self._waiting)[:_PART_BYTES])
            del self._waiting[:_PART_BYTES]
            await self._put_part(part)

    async def _put_part(self, part: bytes) -> None:
        if self._upload_id is None:
            self._upload_id = await self._store.begin_multipart(self._key, metadata={})
        number = len(self._etags) + 1
        etag = await self._store.put_part(self._key, self._upload_id, number, [part], size_bytes=len(part))
        self._etags.append(etag)

    async def finish(self) -> None:
        """Create the object."""
        last = bytes(self._waiting)
        if self._upload_id is None:
            await self._store.put(self._key, [last], size_bytes=len(last), metadata={})
            return
        await self._put_part(last)
        await self._store.complete_multipart(self._key, self._upload_id, self._etags, size_bytes=self._size_bytes)
        self._upload_id = None

    async def drop(self) -> None:
        """Abort the multipart upload, if there is one."""
        if self._upload_id is not None:
            await self._store.abort_multipart(self._key, self._upload_id)


class _Hashing:
    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        self.sha256.update(data)


def _store_config(address: BucketAddress) -> StoreConfig:
    if address.customer_key is not None:
        raise ExportError(f"objects of {address.bucket} are encrypted with a key of the client's: export to the folder")
    try:
        return store_config(address)
    except SourceConfigError as exc:
        raise ExportError(str(exc)) from exc
