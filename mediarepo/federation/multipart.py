"""Multipart/mixed bodies of federation media endpoints (server-server API, "Content Repository").

Written to the byte as the strictest readers need it; read as the loosest writers send it: some leave out the closing
dashes or the whole last boundary, end all lines with LF alone, fold headers, quote the boundary, or send no headers.
"""

import json
import re
import secrets
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote_to_bytes

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.model.mxc import Mxc

_MAX_NAME_BYTES = 2048
_MAX_HEADER_CHARS = 16 * 1024
_DISPOSITION_PARAMETER = re.compile(
    r""";\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.|"(?!\s*(?:;|$)))*)"|([^;"]*))""",
    re.ASCII,
)
_UNWANTED = re.compile(r"[\x00-\x1f\x7f]")


def parse_upload_name(content_disposition: str | None) -> str | None:
    """Return the file name of a Content-Disposition, if it can be stored; `filename*` wins over `filename`."""
    if content_disposition is None or len(content_disposition) > _MAX_HEADER_CHARS:
        return None
    parameters: dict[str, str] = {}
    for name, quoted, plain in _DISPOSITION_PARAMETER.findall(";" + content_disposition.partition(";")[2]):
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain.strip()
        parameters.setdefault(name.lower(), value)
    return _kept(_extended(parameters.get("filename*", ""))) or _kept(_as_utf8(parameters.get("filename", "")))


def _extended(value: str) -> str:
    """Read `utf-8''%E2%98%83`; anything else counts as no name."""
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    if not quote or charset.lower() not in {"utf-8", "us-ascii", "iso-8859-1"}:
        return ""
    return unquote_to_bytes(encoded).decode(charset, "replace")


def _as_utf8(value: str) -> str:
    """Read bytes beyond ASCII, which servers send raw, as UTF-8."""
    try:
        return value.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return value.encode("utf-8", "replace").decode("utf-8")


def _kept(name: str) -> str | None:
    name = _UNWANTED.sub("", name)
    return name if name.strip() and len(name.encode("utf-8", "replace")) <= _MAX_NAME_BYTES else None


class RemoteContent(Protocol):
    """A response of another server that has begun.

    `size_bytes` is the certain length or None; `at_most_bytes` the most it can be, None when nothing was declared.
    """

    content_type: str
    upload_name: str | None
    size_bytes: int | None
    at_most_bytes: int | None

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end. Raises FetchError when they stop coming."""
        ...


class RemoteContentClient(Protocol):
    """Requests media from other servers."""

    def open(
        self, mxc: Mxc, homeserver: HomeserverConfig, *, wait_ms: int
    ) -> AbstractAsyncContextManager[RemoteContent]:
        """Request media, signed by one of our homeservers. Raises FetchError when they cannot be fetched."""
        ...


_MAX_HEAD_BYTES = 16 * 1024
_MAX_JSON_BYTES = 64 * 1024
_MAX_PREAMBLE_BYTES = 16 * 1024
_MAX_BOUNDARY_CHARS = 200
_NEWLINE_AND_DASHES = 4
_PARAMETER = re.compile(r""";\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))""", re.ASCII)
_BLANKS = (b"\r", b"\n", b" ", b"\t")


class MultipartError(ValueError):
    """The body is not two parts, metadata and file, with the declared boundary."""


class Source(Protocol):
    """A body to be read."""

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end."""
        ...


@dataclass(frozen=True, slots=True)
class PartHeaders:
    """The file part's headers; `location` is where the file is instead, `size_bytes` its declared length."""

    content_type: str | None = None
    content_disposition: str | None = None
    location: str | None = None
    size_bytes: int | None = None


def new_boundary() -> str:
    """Return a random boundary of 32 hexadecimal digits."""
    return secrets.token_hex(16)


def mixed_head(boundary: str, content_type: str, content_disposition: str) -> bytes:
    """Return everything before the file's bytes; some readers need it in one piece, with Content-Type first."""
    return (
        f"\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}"
        f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Disposition: {content_disposition}\r\n\r\n"
    ).encode("utf-8", "replace")


def mixed_tail(boundary: str) -> bytes:
    """Return what follows the file's bytes."""
    return f"\r\n--{boundary}--\r\n".encode()


def mixed_redirect(boundary: str, url: str) -> bytes:
    """Return a whole body with a Location, an absolute URL and the part's only header."""
    return (
        f"\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}"
        f"\r\n--{boundary}\r\nLocation: {url}\r\n\r\n\r\n--{boundary}--\r\n"
    ).encode()


def parse_boundary(content_type: str) -> str:
    """Return the boundary of a Content-Type header.

    Raises MultipartError when it is not multipart/mixed or has no usable one.
    """
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != "multipart/mixed":
        raise MultipartError("the answer is not multipart/mixed")
    for name, quoted, plain in _PARAMETER.findall(";" + parameters):
        if name.lower() == "boundary":
            boundary = re.sub(r"\\(.)", r"\1", quoted) or plain.strip()
            if boundary and len(boundary) <= _MAX_BOUNDARY_CHARS and boundary.isascii() and boundary.isprintable():
                return boundary
    raise MultipartError("the answer names no usable boundary")


class MixedBody:
    """Parses the two parts as they arrive: `begin` once, then `read` until it returns nothing.

    `ends_by_length` when the source raises an error if it ends before the body's Content-Length; then a file may end
    with the body, without a last boundary.
    """

    def __init__(self, source: Source, boundary: str, *, ends_by_length: bool = False) -> None:
        self._source = source
        self._ends_by_length = ends_by_length
        self._dashes = b"--" + boundary.encode("ascii")
        self._delimiter = b"\r\n" + self._dashes
        self._buffer = b""
        self._exhausted = False
        self._ended = False

    async def begin(self) -> PartHeaders:
        """Parse up to the file's first byte; returns the part's headers."""
        await self._skip_preamble()
        await self._headers()
        await self._skip_json()
        return _part_headers(await self._headers())

    async def read(self) -> bytes:
        """Return the file's next bytes; empty at its end.

        Raises MultipartError when the body ends without a delimiter.
        """
        while not self._ended:
            at, sure = self._look_for(self._delimiter)
            if at is not None:
                self._ended = True
                data, self._buffer = self._buffer[:at], b""
                return data
            if sure:
                data, self._buffer = self._buffer[:sure], self._buffer[sure:]
                return data
            if not await self._more() and self._look_for(self._delimiter)[0] is None:
                return self._rest()
        return b""

    def _rest(self) -> bytes:
        """Take what is left of a body that has no last boundary, if it is certain that nothing was cut off."""
        within_boundary = len(self._buffer) > _NEWLINE_AND_DASHES and self._delimiter.startswith(self._buffer)
        if not self._ends_by_length or within_boundary:
            raise MultipartError("the body ends within the file")
        self._ended = True
        data, self._buffer = self._buffer, b""
        return data

    def _look_for(self, mark: bytes, start: int = 0) -> tuple[int | None, int]:
        """Find a mark that is followed by what may follow a boundary, and count the bytes that are surely before one.

        What only begins like the boundary is none (RFC 2046, section 5.1.1).
        """
        at = self._buffer.find(mark, start)
        while at >= 0:
            behind = self._buffer[at + len(mark) : at + len(mark) + 2]
            if behind[:1] in _BLANKS or behind == b"--":
                return at, at
            if len(behind) < 2 and not self._exhausted and (not behind or behind == b"-"):  # noqa: PLR2004 - two dashes
                return None, at
            if self._exhausted and behind in {b"", b"-"}:
                return at, at
            at = self._buffer.find(mark, at + 1)
        return None, _before_possible(self._buffer, mark)

    async def _skip_preamble(self) -> None:
        """Go to the end of the first boundary, which stands at the beginning of a line or of the body."""
        self._buffer = b"\r\n"
        await self._skip_past(b"\n" + self._dashes, _MAX_PREAMBLE_BYTES)

    async def _skip_json(self) -> None:
        """Read the metadata and check that they are JSON; there is nothing in them yet."""
        text = await self._skip_past(b"\n" + self._dashes, _MAX_JSON_BYTES)
        if not text.endswith(b"\r"):  # all lines of this body end so
            self._delimiter = b"\n" + self._dashes
        try:
            json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise MultipartError("the metadata are not JSON") from exc

    async def _skip_past(self, mark: bytes, limit: int) -> bytes:
        start = 0
        while (found := self._look_for(mark, start))[0] is None:
            start = found[1]
            if start > limit:
                raise MultipartError("too much comes before a boundary")
            if not await self._more() and self._look_for(mark, start)[0] is None:
                raise MultipartError("the body ends before its second part")
        at = found[0]
        before, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        return before

    async def _headers(self) -> dict[str, str]:
        """Read the rest of a boundary's line, and header lines up to an empty one."""
        headers: dict[str, str] = {}
        name, used = "", 0
        rest = await self._line()
        if rest.startswith(b"--"):
            raise MultipartError("the body has fewer than two parts")
        while line := await self._line():
            used += len(line)
            if used > _MAX_HEAD_BYTES:
                raise MultipartError("a part's headers are too long")
            text = line.decode("utf-8", "surrogateescape")
            if text[0] in " \t" and name in headers:  # folded (RFC 5322, section 2.2.3)
                headers[name] = f"{headers[name]} {text.strip()}".strip()
                continue
            name, colon, value = text.partition(":")
            name = name.strip().lower()
            if colon:
                headers[name] = value.strip()
        return headers

    async def _line(self) -> bytes:
        while (at := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise MultipartError("a part's headers are too long")
            if not await self._more():
                raise MultipartError("the body ends within a part's headers")
        line, self._buffer = self._buffer[:at], self._buffer[at + 1 :]
        return line.removesuffix(b"\r")

    async def _more(self) -> bool:
        piece = b"" if self._exhausted else await self._source.read()
        self._exhausted = not piece
        self._buffer += piece
        return bool(piece)


def _before_possible(buffer: bytes, delimiter: bytes) -> int:
    """Count the bytes that no delimiter can begin in, whatever follows."""
    for kept in range(min(len(delimiter) - 1, len(buffer)), 0, -1):
        if buffer.endswith(delimiter[:kept]):
            return len(buffer) - kept
    return len(buffer)


def _part_headers(headers: dict[str, str]) -> PartHeaders:
    length = headers.get("content-length", "")
    return PartHeaders(
        content_type=headers.get("content-type"),
        content_disposition=headers.get("content-disposition"),
        location=headers.get("location"),
        size_bytes=int(length) if length.isascii() and length.isdecimal() and len(length) < 16 else None,  # noqa: PLR2004 - petabytes are no media
    )
