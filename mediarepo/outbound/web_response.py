"""Heads and bodies of web servers' responses, parsed as browsers parse them; pure functions of bytes.

Tolerated: bare LF, folded lines, lines that are no headers, statuses without a reason, any bytes in values. Not
tolerated: a response that does not begin as HTTP, and lengths or locations that contradict one another.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MAX_HEAD_BYTES = 256 * 1024
_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP(?:/([0-9])(?:\.([0-9]))?)?[ \t]*([0-9]{3})(?![0-9])", re.IGNORECASE)
_BEFORE_STATUS = re.compile(rb"[\x00-\x20]{0,4}")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_MAX_HEADERS = 2_000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WITHOUT_BODY = frozenset({204, 205, 304})


class HeadError(ValueError):
    """A response that no browser would accept; the message says why."""


class BodyFraming(StrEnum):
    """How the end of a body is found."""

    NONE = "none"
    CHUNKED = "chunked"
    LENGTH = "length"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers, names in lower case, values as received."""

    status: int
    version: tuple[int, int]
    headers: tuple[tuple[bytes, bytes], ...]

    def raw(self, name: str) -> list[bytes]:
        """Return all values of a header as bytes."""
        wanted = name.lower().encode()
        return [value for known, value in self.headers if known == wanted]

    def texts(self, name: str) -> list[str]:
        """Return all values of a header as text: UTF-8, else Latin-1."""
        return [_text(value) for value in self.raw(name)]

    def text(self, name: str) -> str | None:
        """Return all values of a header joined by commas (Fetch, "get a header"); None when there is none."""
        return ", ".join(self.texts(name)) if self.raw(name) else None


def find_end(data: bytes | bytearray) -> int | None:
    """Return where the body begins; None while the headers are incomplete."""
    found = _END.search(data)
    return found.end() if found else None


def may_be_http(data: bytes | bytearray) -> bool:
    """Return whether the first bytes can still become an HTTP response."""
    before = _BEFORE_STATUS.match(data)
    first = bytes(data[before.end() if before else 0 :][:4]).upper()
    return b"HTTP".startswith(first)


def parse_head(data: bytes) -> Head:
    """Parse status line and headers, with or without the final empty line. Raises HeadError."""
    before = _BEFORE_STATUS.match(data)
    line, _, rest = data[before.end() if before else 0 :].partition(b"\n")
    found = _STATUS_LINE.match(line)
    if found is None:
        raise HeadError("no status line")
    version = (int(found[1] or 1), int(found[2] or 0))
    return Head(int(found[3]), version, tuple(_headers(rest)))


def _headers(data: bytes) -> list[tuple[bytes, bytes]]:
    read: list[tuple[bytes, bytes]] = []
    continues = False
    for line in data.split(b"\n"):
        line = line.removesuffix(b"\r")  # noqa: PLW2901 - the same line without its end
        if line[:1] in {b" ", b"\t"}:
            if continues:
                read[-1] = (read[-1][0], (read[-1][1] + b" " + _value(line)).strip(b" \t"))
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        continues = bool(colon) and _TOKEN.fullmatch(name) is not None
        if continues:
            read.append((name.lower(), _value(value)))
        if len(read) > _MAX_HEADERS:
            raise HeadError("too many headers")
    return read


def _value(raw: bytes) -> bytes:
    return _CONTROLS.sub(b"", raw).strip(b" \t")


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def body_framing(head: Head) -> tuple[BodyFraming, int]:
    """Return how the body ends (RFC 9112, section 6.3), and its declared length.

    Chunks count in HTTP/1.1 only; a length that is no number is ignored. Raises HeadError for two lengths.
    """
    if head.status in _WITHOUT_BODY:
        return BodyFraming.NONE, 0
    codings = ",".join(head.texts("Transfer-Encoding")).lower().split(",")
    if head.version >= (1, 1) and "chunked" in {coding.partition(";")[0].strip() for coding in codings}:
        return BodyFraming.CHUNKED, 0
    values = {one.strip() for value in head.texts("Content-Length") for one in value.split(",")}
    lengths = {int(value) for value in values if _LENGTH.fullmatch(value)}
    if len(lengths) > 1:
        raise HeadError("several lengths")
    if not lengths or len(lengths) < len({value.lstrip("0") or "0" for value in values}):
        return BodyFraming.CLOSE, 0
    return BodyFraming.LENGTH, lengths.pop()


def location(head: Head) -> str | None:
    """Return the redirect target, non-ASCII bytes escaped; None when there is none.

    Raises HeadError for several different ones: an injected header must not choose.
    """
    found = [value for value in head.raw("Location") if value]
    if head.status not in _REDIRECTS or not found:
        return None
    if len(set(found)) > 1:
        raise HeadError("several locations")
    return escaped(found[0])


def escaped(raw: bytes) -> str:
    """Percent-encode non-ASCII bytes, as browsers do with a Location."""
    return "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in raw)  # noqa: PLR2004 - where ASCII ends


def refresh(head: Head) -> str | None:
    """Return the Refresh header, of which the first counts."""
    found: Sequence[bytes] = head.raw("Refresh")
    return escaped(found[0]) if found else None


_MAX_LINE_BYTES = 16 * 1024
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)


class BodyReader(Protocol):
    """Extracts the body from what a connection delivers."""

    is_done: bool

    def feed(self, piece: bytes) -> bytes:
        """Parse the next bytes; returns those of the body."""
        ...


class UntilClose:
    """A body that ends with the connection."""

    is_done = False

    def feed(self, piece: bytes) -> bytes:
        """Return the bytes as they are."""
        return piece


class Counted:
    """A body of a declared length; further bytes are ignored."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self.is_done = size_bytes == 0

    def feed(self, piece: bytes) -> bytes:
        """Return the bytes up to the declared length."""
        taken = piece[: self._left]
        self._left -= len(taken)
        self.is_done = self._left == 0
        return taken


class Chunked:
    """A chunked body (RFC 9112, section 7.1), lines ending with CRLF or LF; an invalid size ends the body."""

    def __init__(self) -> None:
        self.is_done = False
        self._waiting = bytearray()
        self._left = 0
        self._after_data = False

    def feed(self, piece: bytes) -> bytes:
        """Return the data of the chunks."""
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


def body_reader(body_framing: BodyFraming, size_bytes: int) -> BodyReader:
    """Return the reader for a framing."""
    match body_framing:
        case BodyFraming.CHUNKED:
            return Chunked()
        case BodyFraming.CLOSE:
            return UntilClose()
        case BodyFraming.LENGTH | BodyFraming.NONE:
            return Counted(size_bytes)
