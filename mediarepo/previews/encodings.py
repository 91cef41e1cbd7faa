"""Undoing a Content-Encoding, never beyond a bound (RFC 9110, section 8.4)."""

import zlib

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
ACCEPTED = "gzip, deflate"
"""What `Decoder` undoes, for Accept-Encoding."""


class UnreadableEncodingError(Exception):
    """A body is encoded in a way that is not understood, or is broken."""


class Decoder:
    """Undoes an encoding piece by piece; what would go beyond `max_bytes` is never made."""

    def __init__(self, content_encoding: str | None, max_bytes: int) -> None:
        name = (content_encoding or "identity").strip().lower()
        if name not in {"identity", "gzip", "x-gzip", "deflate", ""}:
            raise UnreadableEncodingError(f"the encoding {name[:50]!r} is not understood")
        self._deflate = name == "deflate"
        self._inflating = None if name in {"identity", ""} else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._max_bytes = max_bytes
        self._begun = False
        self.body = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether there is as much as is wanted."""
        return len(self.body) >= self._max_bytes

    def feed(self, piece: bytes) -> None:
        """Take a piece as it was sent; UnreadableEncodingError when it is broken."""
        room = self._max_bytes - len(self.body)
        if room <= 0:
            return
        if self._inflating is None:
            self.body += piece[:room]
            return
        try:
            self.body += self._inflating.decompress(piece, room)
        except zlib.error as exc:
            if not self._deflate or self._begun:
                raise UnreadableEncodingError("the body's encoding is broken") from exc
            self._inflating = zlib.decompressobj(_RAW)
            self._begun = True
            self.feed(piece)
        self._begun = True
