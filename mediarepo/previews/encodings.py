"""Undoing a Content-Encoding, never beyond a bound (RFC 9110, section 8.4)."""

import zlib
from typing import Protocol

import brotli

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_HEADER_BYTES = 2
_PIECE_BYTES = 64 * 1024
ACCEPTED = "gzip, deflate, br"
"""What `Decoder` undoes, for Accept-Encoding."""


class UnreadableEncodingError(Exception):
    """A body is encoded in a way that is not understood, or is broken."""


class _Undoing(Protocol):
    """Undoes an encoding; gives at most about so many bytes, and the rest when it is fed nothing."""

    def undo(self, piece: bytes, room: int) -> bytes: ...


class _Identity:
    def undo(self, piece: bytes, room: int) -> bytes:
        return piece[:room]


class _Inflating:
    """gzip, or zlib, or deflate without any header, which some servers take `deflate` for."""

    def __init__(self, *, may_be_raw: bool) -> None:
        self._inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._may_be_raw = may_be_raw
        self._seen = b""

    def undo(self, piece: bytes, room: int) -> bytes:
        if self._may_be_raw:
            self._seen += piece
        try:
            undone = self._inflating.decompress(self._inflating.unconsumed_tail + piece, room)
        except zlib.error:
            if not self._may_be_raw:
                raise
            self._may_be_raw = False
            self._inflating = zlib.decompressobj(_RAW)
            return self._inflating.decompress(self._seen, room)
        self._may_be_raw = self._may_be_raw and len(self._seen) < _HEADER_BYTES
        return undone


class _Brotli:
    def __init__(self) -> None:
        self._undoing = brotli.Decompressor()

    def undo(self, piece: bytes, room: int) -> bytes:
        undone: bytes = self._undoing.process(piece, output_buffer_limit=min(room, _PIECE_BYTES))
        return undone


class Decoder:
    """Undoes an encoding piece by piece; what would go beyond `max_bytes` is never made, or let go at once."""

    def __init__(self, content_encoding: str | None, max_bytes: int) -> None:
        self._undoing = _undoing((content_encoding or "identity").strip().lower())
        self._max_bytes = max_bytes
        self.body = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether there is as much as is wanted."""
        return len(self.body) >= self._max_bytes

    def feed(self, piece: bytes) -> None:
        """Take a piece as it was sent; UnreadableEncodingError when it is broken."""
        try:
            while not self.is_full:
                undone = self._undoing.undo(piece, self._max_bytes - len(self.body))
                self.body += undone[: self._max_bytes - len(self.body)]
                if not undone or isinstance(self._undoing, _Identity):
                    return
                piece = b""
        except (zlib.error, brotli.error) as exc:
            raise UnreadableEncodingError("the body's encoding is broken") from exc


def _undoing(name: str) -> _Undoing:
    match name:
        case "identity" | "":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Inflating(may_be_raw=False)
        case "deflate":
            return _Inflating(may_be_raw=True)
        case "br":
            return _Brotli()
        case _:
            raise UnreadableEncodingError(f"the encoding {name[:50]!r} is not understood")
