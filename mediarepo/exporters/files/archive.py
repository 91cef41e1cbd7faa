"""An archive of media, in a folder or as one tar stream: content files and their lists."""

import asyncio
import hashlib
import json
import os
import re
import tarfile
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from mimetypes import MimeTypes
from pathlib import Path
from typing import IO, Protocol, Self

from mediarepo.exporters.destination import BytesPlace, ExportError, FolderPlace, FoundBytes, OpenWrite
from mediarepo.model.exports import ExportMedia, ExportResult
from mediarepo.model.media import MediaState

CONTENT_FOLDER = "media"
_NAME_BYTES = 96
_EXTENSION_CHARS = 10
_ID_CHARS = 128
_FOLDERS = re.compile(r"[/\\]")
_MEDIA_ID = re.compile(r"[A-Za-z0-9._~=-]+", re.ASCII)
_TYPES = MimeTypes(filenames=())


def path_of(media: ExportMedia) -> str:
    """Return the path of content: server name, media id, and the harmless characters of its file name.

    An id may have any character of a name but '@', so no two media have the same path.
    """
    server = _harmless(media.mxc.server_name.strip("[").replace("]", "")) or "server"
    return f"{CONTENT_FOLDER}/{server}/{_id(media.mxc.media_id)}@{_name(media)}"


def _id(media_id: str) -> str:
    """Replace what a shell would see something in, and cut what is longer than file names may be.

    An id that is none, as a row of another repository may have had it, becomes its hash.
    """
    if not _MEDIA_ID.fullmatch(media_id) or media_id in {".", ".."}:
        return f"+{hashlib.sha256(media_id.encode()).hexdigest()}"
    if len(media_id) > _ID_CHARS:
        media_id = f"{media_id[:_ID_CHARS]}+{hashlib.sha256(media_id.encode()).hexdigest()[:16]}"
    return media_id.replace("~", "+")


def _name(media: ExportMedia) -> str:
    stem, extension = _split(_harmless(_FOLDERS.split(media.upload_name or "")[-1]))
    if not extension:
        declared = media.content_type.partition(";")[0].strip().lower()
        extension = _TYPES.guess_extension(declared, strict=True) or ".bin"
    room = _NAME_BYTES - len(extension.encode())
    return (_cut(stem, room) or "content") + extension


def _split(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    if stem and dot and 0 < len(extension) <= _EXTENSION_CHARS and extension.isascii():
        return stem, f".{extension}"
    return name.rstrip("."), ""


def _harmless(text: str) -> str:
    """Keep letters, digits and a few marks; all else becomes a line, and what cannot be seen becomes nothing."""
    kept = []
    for char in unicodedata.normalize("NFC", text):
        category = unicodedata.category(char)[0]
        if category in "LNM" or char in "-_.":
            kept.append(char)
        elif category != "C":
            kept.append("_")
    return "".join(kept).lstrip(".-")


def _cut(text: str, size_bytes: int) -> str:
    return text.encode()[:size_bytes].decode(errors="ignore").rstrip(".")


MANIFEST, SUMS, ABOUT = "manifest.jsonl", "SHA256SUMS", "export.json"
_IN_MEMORY_BYTES = 16 * 1024 * 1024


class Lists:
    """The lists of exported media, in an unnamed temporary file once they are large."""

    def __init__(self) -> None:
        self.manifest: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by __exit__
        self.sums: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - as above

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.manifest.close()
        self.sums.close()

    def note(self, result: ExportResult) -> None:
        """Add the lines of one piece of media."""
        line = json.dumps(_entry(result), ensure_ascii=False)
        self.manifest.write(line.encode(errors="replace") + b"\n")
        if result.path is not None and result.sha256 is not None:
            self.sums.write(f"{result.sha256.hex()}  {result.path}\n".encode())


def _entry(result: ExportResult) -> dict[str, object]:
    media = result.media
    sha256 = result.sha256 or media.sha256
    return {
        "mxc": str(media.mxc),
        "path": result.path,
        "why_no_content": None if result.path else result.words,
        "content_type": media.content_type,
        "upload_name": media.upload_name,
        "size_bytes": None if media.state is MediaState.PENDING else media.size_bytes,
        "sha256": None if sha256 is None else sha256.hex(),
        "created_ts": media.created_ts,
        "last_access_ts": media.last_access_ts,
        "uploaded_by": media.uploaded_by,
        "state": media.state.value,
        "quarantined_by": media.quarantined_by,
        "protected": media.protected,
        "remote": media.remote,
    }


class Archive(BytesPlace, Protocol):
    """A destination that also takes lists; open it with `async with`."""

    async def __aenter__(self) -> Self:
        """Make room."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it."""
        ...

    async def begin(self, about: Mapping[str, object]) -> None:
        """Write the archive's description. Raises ExportError when another export or other files exist already."""
        ...

    async def replace(self, path: str, content: IO[bytes]) -> None:
        """Write one of our own files."""
        ...

    async def close_with(self, lists: Lists) -> None:
        """Add the lists: the archive is complete."""
        ...


def describe(about: Mapping[str, object]) -> bytes:
    """Return the archive's description as JSON bytes."""
    return json.dumps({"format": 1, **about}, indent=2, ensure_ascii=False).encode() + b"\n"


async def add_lists(archive: Archive, lists: Lists) -> None:
    """Add the lists as files."""
    for name, content in ((MANIFEST, lists.manifest), (SUMS, lists.sums)):
        content.seek(0)
        await archive.replace(name, content)


class FolderArchive(FolderPlace):
    """A folder; an interrupted export resumes in it."""

    async def begin(self, about: Mapping[str, object]) -> None:
        """Resume the same export, or begin in an empty folder. Raises ExportError when it holds something else."""
        wanted, path = describe(about), self.folder / ABOUT
        if path.exists():
            if path.read_bytes() != wanted:
                raise ExportError(f"{self.folder} holds another export ({ABOUT} tells which): choose another folder")
            return
        if any(not one.name.startswith(".") for one in self.folder.iterdir()):
            raise ExportError(f"{self.folder} holds something else: choose another folder")
        await self.replace(ABOUT, BytesIO(wanted))

    async def close_with(self, lists: Lists) -> None:
        """Add the lists."""
        await add_lists(self, lists)


_TAR_IN_MEMORY_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_BLOCK_BYTES = tarfile.BLOCKSIZE


class TarArchive:
    """A tar stream, members in the order they are read; the lists come last.

    A small member is written when it is complete and its hash is right. A large one is written as it arrives: if its
    hash turns out wrong, it stays in the archive, and the lists do not name it.
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
        """Write the description."""
        await self.replace(ABOUT, BytesIO(describe(about)))

    async def find(self, path: str) -> FoundBytes | None:  # noqa: ARG002 - a stream begins empty
        """Return None: a stream cannot be read again."""
        return None

    @asynccontextmanager
    async def writing(self, path: str, *, size_bytes: int) -> AsyncIterator[OpenWrite]:
        """Write a member: when it is complete if it is small, else as it arrives.

        Raises ExportError when a large member is cut short: the stream cannot be continued.
        """
        if size_bytes <= _TAR_IN_MEMORY_BYTES:
            kept = _KeptMember()
            yield kept
            if kept.finished:
                await self._put_member(path, kept.pieces)
            return
        async with self._lock:
            member = _Member(self, path, size_bytes)
            try:
                yield member
            except Exception as exc:  # raised again, or as what it means for the archive
                if 0 < member.written_bytes < size_bytes:
                    raise ExportError(f"{self.words} was cut short within {path}: begin again") from exc
                raise
            finally:
                if member.written_bytes == size_bytes:
                    await self._pad(size_bytes)

    async def replace(self, path: str, content: IO[bytes]) -> None:
        """Write one of our own files."""
        size_bytes = content.seek(0, os.SEEK_END)
        content.seek(0)
        async with self._lock:
            await self.head(path, size_bytes)
            while data := await asyncio.to_thread(content.read, _PIECE_BYTES):
                await self.put(data)
            await self._pad(size_bytes)

    async def close_with(self, lists: Lists) -> None:
        """Add the lists and the end of the archive."""
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
        """Write the header of a member."""
        info = tarfile.TarInfo(path)
        info.size, info.mtime, info.mode = size_bytes, self._now_s, 0o644
        await self.put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))

    async def _pad(self, size_bytes: int) -> None:
        await self.put(bytes(-size_bytes % _BLOCK_BYTES))

    async def put(self, data: bytes) -> None:
        """Write bytes."""
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
