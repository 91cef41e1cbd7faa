"""Bodies of web servers' answers: what came is what counts, wherever and however it ends."""

import re
from typing import Protocol

from mediarepo.outbound.web_head import Framing

_MAX_LINE_BYTES = 16 * 1024
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)


class BodyReader(Protocol):
    """Takes what comes over a connection, gives what of it is body."""

    is_done: bool

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes."""
        ...


class UntilClose:
    """All that comes."""

    is_done = False

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes."""
        return piece


class Counted:
    """So many bytes; what follows is none of the body."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self.is_done = size_bytes == 0

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes."""
        taken = piece[: self._left]
        self._left -= len(taken)
        self.is_done = self._left == 0
        return taken


class Chunked:
    """Chunks (RFC 9112, section 7.1), whose lines may end with a bare LF; a size that is none ends the body."""

    def __init__(self) -> None:
        self.is_done = False
        self._waiting = bytearray()
        self._left = 0
        self._after_data = False

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes."""
        self._waiting += piece
        body = bytearray()
        at = 0
        while not self.is_done and at < len(self._waiting):
            if self._left:
                taken = self._waiting[at : at + self._left]
                body += taken
                at += len(taken)
                self._left -= len(taken)
                self._after_data = self._left == 0
                continue
            end = self._waiting.find(b"\n", at, at + _MAX_LINE_BYTES)
            if end < 0:
                self.is_done = len(self._waiting) - at >= _MAX_LINE_BYTES
                break
            self._line(bytes(self._waiting[at:end]).rstrip(b"\r"))
            at = end + 1
        del self._waiting[:at]
        return bytes(body)

    def _line(self, line: bytes) -> None:
        if self._after_data and not line:
            self._after_data = False
            return
        self._after_data = False
        found = _CHUNK_SIZE.fullmatch(line)
        self._left = int(found[1], 16) if found else 0
        self.is_done = self._left == 0


def body_reader(framing: Framing, size_bytes: int) -> BodyReader:
    """Choose how a body is read."""
    match framing:
        case Framing.CHUNKED:
            return Chunked()
        case Framing.CLOSE:
            return UntilClose()
        case Framing.LENGTH | Framing.NONE:
            return Counted(size_bytes)
