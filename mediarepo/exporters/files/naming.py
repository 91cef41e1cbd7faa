"""Names of files in an archive, which mean nothing to any shell, tool or system."""

import hashlib
import re
import unicodedata
from mimetypes import MimeTypes

from mediarepo.model.exports import ExportMedia

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
