"""Undoing a Content-Encoding, never beyond a bound (RFC 9110, section 8.4)."""

import zlib
from typing import Protocol

import brotli

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_HEADER_BYTES = 2
_PIECE_BYTES = 64 * 1024
_MAX_LAYERS = 3
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_NAMES = frozenset({"gzip", "x-gzip"})
_KNOWN = _GZIP_NAMES | {"deflate", "br"}
_NONE = frozenset({"identity", "none"})
_UNREADABLE = frozenset({"zstd", "dcb", "dcz"})
"""What browsers would undo; what nobody knows is ignored instead."""
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
        if self._inflating.eof:
            return b""
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


class _Layer:
    """Undoes one encoding; a body that an outer layer has laid bare already is passed on as it is."""

    def __init__(self, name: str, *, may_be_bare: bool) -> None:
        self._name = name
        self._undoing = _undoing(name)
        self._may_be_bare = may_be_bare
        self._first = b""

    def undo(self, piece: bytes, room: int) -> bytes:
        if not self._may_be_bare:
            return self._undoing.undo(piece, room)
        self._first += piece
        if self._name in _GZIP_NAMES and self._first in {b"", _GZIP_MAGIC[:1]}:
            return b""
        self._may_be_bare = False
        if self._name in _GZIP_NAMES and not self._first.startswith(_GZIP_MAGIC[: len(self._first)]):
            self._undoing = _Identity()
        first, self._first = self._first, b""
        return self._undoing.undo(first, room)


class Decoder:
    """Undoes the encodings of a body piece by piece; what would go beyond `max_bytes` is never made, or let go at once.

    Encodings that nobody knows are ignored. A body that ends too early, or goes on behind its end, is what it is up to
    there.
    """

    def __init__(self, content_encoding: str | None, max_bytes: int) -> None:
        names = [name for name in _listed(content_encoding) if name not in _NONE]
        if any(name in _UNREADABLE for name in names):
            raise UnreadableEncodingError(f"the encoding {names[0][:50]!r} is not understood")
        known = [name for name in names if name in _KNOWN]
        if len(known) > _MAX_LAYERS:
            raise UnreadableEncodingError("too many encodings inside one another")
        outer_first = known[::-1]
        self._layers = [
            _Layer(name, may_be_bare=at > 0 and outer_first[at - 1] == name) for at, name in enumerate(outer_first)
        ]
        self._max_bytes = max_bytes
        self.body = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether there is as much as is wanted."""
        return len(self.body) >= self._max_bytes

    def feed(self, piece: bytes) -> None:
        """Take a piece as it was sent; UnreadableEncodingError when it is broken and nothing was readable before."""
        try:
            self._feed(piece, 0)
        except (zlib.error, brotli.error) as exc:
            if not self.body:
                raise UnreadableEncodingError("the body's encoding is broken") from exc
            self._max_bytes = len(self.body)

    def _feed(self, piece: bytes, depth: int) -> None:
        """Give a piece to a layer, and what comes out of it to the next, in pieces of a bounded size."""
        if depth == len(self._layers):
            self.body += piece[: self._max_bytes - len(self.body)]
            return
        is_last = depth == len(self._layers) - 1
        while not self.is_full:
            room = self._max_bytes - len(self.body) if is_last else _PIECE_BYTES
            undone = self._layers[depth].undo(piece, room)
            if not undone:
                return
            self._feed(undone, depth + 1)
            piece = b""


def _listed(content_encoding: str | None) -> list[str]:
    return [name.strip().lower() for name in (content_encoding or "").split(",") if name.strip()]


def _undoing(name: str) -> _Undoing:
    if name in _GZIP_NAMES:
        return _Inflating(may_be_raw=False)
    return _Inflating(may_be_raw=True) if name == "deflate" else _Brotli()
