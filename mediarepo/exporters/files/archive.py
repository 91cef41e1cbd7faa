"""An archive of media in a folder: content files and their lists."""

import hashlib
import json
import re
import tempfile
import unicodedata
from collections.abc import Mapping
from io import BytesIO
from mimetypes import MimeTypes
from typing import IO, Protocol, Self

from mediarepo.exporters.destination import BytesPlace, ExportError
from mediarepo.exporters.folder import FolderPlace
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
    """Say where content lies: under server name and media id, with as much of its own name as is harmless.

    An id can hold every character that a name can but '@', so no two media have the same path.
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
    """Grows line by line, in a file without a name once it is large."""

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
    """A place that also takes lists; open it before use, with `async with`."""

    async def __aenter__(self) -> Self:
        """Make room."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it."""
        ...

    async def begin(self, about: Mapping[str, object]) -> None:
        """Say what goes in; ExportError when something else is there already."""
        ...

    async def replace(self, path: str, content: IO[bytes]) -> None:
        """Write a file of ours."""
        ...

    async def close_with(self, lists: Lists) -> None:
        """Add the lists: everything is there."""
        ...


def describe(about: Mapping[str, object]) -> bytes:
    """Write down what an archive is of."""
    return json.dumps({"format": 1, **about}, indent=2, ensure_ascii=False).encode() + b"\n"


async def add_lists(archive: Archive, lists: Lists) -> None:
    """Add the lists as files."""
    for name, content in ((MANIFEST, lists.manifest), (SUMS, lists.sums)):
        content.seek(0)
        await archive.replace(name, content)


class FolderArchive(FolderPlace):
    """A folder that an interrupted export goes on in."""

    async def begin(self, about: Mapping[str, object]) -> None:
        """Go on with the same export, or begin in an empty folder."""
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
