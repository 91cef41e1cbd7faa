"""Keys of Conduit-like databases, and sources that must be read whole and sorted here."""

import base64
import binascii
import re
from abc import abstractmethod
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from email.message import Message
from urllib.parse import unquote

from mediarepo.importers.readers.byte_source import path_order
from mediarepo.importers.readers.merge_join import BytePlaces, MergeJoin
from mediarepo.importers.readers.source_base import BaseSource
from mediarepo.model.import_source import SourceItem, SourceKey, SourceMedia, SourceThumbnail, UnclaimedBytes

SEPARATOR = b"\xff"
_SCHEME = b"mxc://"
_DIMENSIONS = 8
_QUOTED_NAME = re.compile(r"""[;\s]filename\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:;|$)""", re.IGNORECASE)
_EXTENDED_NAME = re.compile(r"[;\s]filename\*\s*=\s*utf-8'[^']*'([^;\s\"]*)\s*(?:;|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MediaKey:
    """A parsed key: mxc address, thumbnail size (0 by 0: the original), and two headers of the upload."""

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
    """Parse a media key; its sizes may contain separators.

    The fields are mxc, separator, width, height, separator, disposition, separator, type.
    """
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
    """Parse a key that is a file's name, in unpadded URL-safe base64."""
    try:
        return parse_media_key(base64.b64decode(name + "=" * (-len(name) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None


def file_name_of(disposition: str) -> str | None:
    """Return the file name of a Content-Disposition, spaces within quotes unchanged."""
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
    """Decode part of a key as text, reversibly."""
    return value.decode(errors="surrogateescape")


def encode(*parts: str) -> bytes:
    """Encode decoded texts as a key again."""
    return SEPARATOR.join(part.encode(errors="surrogateescape") for part in parts)


def storable(value: bytes) -> str:
    """Return text that Postgres can store."""
    return value.decode(errors="ignore").replace("\x00", "")


_FRESH_MS = 10 * 60 * 1000


class IndexedSource(BaseSource):
    """Holds every row in memory while iterating, some hundred bytes each; these servers are small."""

    @abstractmethod
    async def read_all(self) -> list[SourceMedia]:
        """Read every row, in any order."""

    async def other_paths(self) -> Collection[str]:
        """Return the paths of bytes that belong to no row, such as thumbnails."""
        return ()

    async def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over all media in the order of their keys."""
        for media in sorted(await self.read_all(), key=lambda one: one.key.order):
            if after is None or media.key.order > after.order:
                yield media

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now."""
        wanted = SourceKey(server_name, media_id)
        return next((media for media in await self.read_all() if media.key == wanted), None)

    async def located(self) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Iterate over all media and bytes, in the order of paths."""
        placed = [self.place(media) for media in await self.read_all()]
        placed += [BytePlaces(None, path) for path in await self.other_paths()]
        placed.sort(key=lambda one: path_order(one.path or ""))
        joining = MergeJoin(self.byte_sources, started_ts=self._now_ms() - _FRESH_MS, is_known=self._is_known)
        async for met in joining.join(_each(placed), ""):
            yield met

    async def _is_known(self, path: str) -> bool:
        return any(self.place(media).path == path for media in await self.read_all())

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over the known thumbnails of one piece of media."""
        for thumbnail in await self.known_thumbnails(media):
            yield thumbnail

    @abstractmethod
    async def known_thumbnails(self, media: SourceMedia) -> Sequence[SourceThumbnail]:
        """Return all known thumbnails."""

    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Return a thumbnail's path, which its row names."""
        return [thumbnail.filesystem_id] if thumbnail.filesystem_id else []


async def _each(placed: Sequence[BytePlaces]) -> AsyncGenerator[BytePlaces, None]:
    for one in placed:
        yield one
