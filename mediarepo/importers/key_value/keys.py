"""Keys and values in which fields are parted by a byte that UTF-8 never has."""

import base64
import binascii
import re
from dataclasses import dataclass
from email.message import Message
from urllib.parse import unquote

SEPARATOR = b"\xff"
_SCHEME = b"mxc://"
_DIMENSIONS = 8
_QUOTED_NAME = re.compile(r"""[;\s]filename\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:;|$)""", re.IGNORECASE)
_EXTENDED_NAME = re.compile(r"[;\s]filename\*\s*=\s*utf-8'[^']*'([^;\s\"]*)\s*(?:;|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MediaKey:
    """An mxc address, the size of a thumbnail (0 by 0: the original), and two headers of the upload."""

    server_name: str
    media_id: str
    width: int
    height: int
    upload_name: str | None
    content_type: str | None

    @property
    def is_original(self) -> bool:
        """Whether it is no thumbnail."""
        return self.width == self.height == 0


def parse_media_key(key: bytes) -> MediaKey | None:
    """Read mxc, separator, width, height, separator, disposition, separator, type; the sizes may contain separators."""
    address, found, rest = key.partition(SEPARATOR)
    if not found or not address.startswith(_SCHEME) or rest[_DIMENSIONS : _DIMENSIONS + 1] != SEPARATOR:
        return None
    server_name, slash, media_id = address.removeprefix(_SCHEME).partition(b"/")
    if not slash or not server_name or not media_id:
        return None
    disposition, _, content_type = rest[_DIMENSIONS + 1 :].rpartition(SEPARATOR)
    return MediaKey(
        decode(server_name),
        decode(media_id),
        int.from_bytes(rest[:4], "big"),
        int.from_bytes(rest[4:_DIMENSIONS], "big"),
        file_name_of(storable(disposition)),
        storable(content_type) or None,
    )


def parse_encoded_key(name: str) -> MediaKey | None:
    """Read a key that was made a file's name, in base64 for URLs without padding."""
    try:
        return parse_media_key(base64.b64decode(name + "=" * (-len(name) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None


def file_name_of(disposition: str) -> str | None:
    """Read the file name out of a Content-Disposition, blanks within quotes as they are."""
    if not disposition:
        return None
    quoted = _QUOTED_NAME.search(f"; {disposition}")
    if quoted is not None and "filename*" not in disposition.lower():
        return re.sub(r"\\(.)", r"\1", quoted[1]) or None
    extended = _EXTENDED_NAME.search(f"; {disposition}")
    if extended is not None:
        return unquote(extended[1], errors="replace") or None
    kind, semicolon, _ = disposition.partition(";")
    message = Message()
    message["Content-Disposition"] = disposition if semicolon or "=" not in kind else f"attachment; {disposition}"
    try:
        return message.get_filename() or None
    except (LookupError, ValueError):
        return None


def decode(value: bytes) -> str:
    """Make text of what is part of a key, so that it can be made bytes again."""
    return value.decode(errors="surrogateescape")


def encode(*parts: str) -> bytes:
    """Make a key of texts that were decoded from one."""
    return SEPARATOR.join(part.encode(errors="surrogateescape") for part in parts)


def storable(value: bytes) -> str:
    """Make text that Postgres keeps."""
    return value.decode(errors="ignore").replace("\x00", "")
