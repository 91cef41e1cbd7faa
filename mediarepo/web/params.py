"""Parses and checks request parameters."""

import re
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import web

from mediarepo.errors import InvalidParamError, MissingParamError
from mediarepo.model.declared import (
    DEFAULT_CONTENT_TYPE,
    MAX_CONTENT_TYPE_CHARS,
    MAX_UPLOAD_NAME_BYTES,
    is_content_type,
)
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from mediarepo.model.mxc import Mxc, parse_mxc
from mediarepo.model.requester import current_record

_MAX_QUERY_FIELDS = 100
_MAX_DIMENSION = 65_535
_DEFAULT_WAIT_MS = 20_000
_MAX_WAIT_DIGITS = 9
_DOT_SEGMENTS = frozenset({".", ".."})


Choice = TypeVar("Choice", bound=StrEnum)


class Query:
    """A query string, decoded strictly as UTF-8; the first of repeated names counts."""

    def __init__(self, request: web.Request) -> None:
        self._fields: dict[str, str] = {}
        self._pairs: list[tuple[str, str]] = []
        text = request.rel_url.raw_query_string
        if not text:
            return
        try:
            fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
        except UnicodeDecodeError as exc:
            raise InvalidParamError("the query string is not percent-encoded UTF-8") from exc
        except ValueError as exc:
            raise InvalidParamError("the query string has too many fields") from exc
        self._pairs = fields
        for name, value in reversed(fields):
            self._fields[name] = value

    def fields(self) -> dict[str, str]:
        """Return all fields, the first of each name."""
        return dict(self._fields)

    def all(self, name: str) -> list[str]:
        """Return all values of a name, in order."""
        return [value for key, value in self._pairs if key == name]

    def text(self, name: str) -> str | None:
        """Return a text, or None."""
        return self._fields.get(name)

    def positive(self, name: str) -> int:
        """Parse a required integer of at least 1, capped at the largest picture's size.

        Raises MissingParamError when it is absent, InvalidParamError when it is no positive integer.
        """
        text = self._fields.get(name)
        if text is None:
            raise MissingParamError(f"Missing required integer query parameter {name}")
        digits = text.strip().removeprefix("+")
        if not re.fullmatch(r"-?[0-9]+", digits, re.ASCII):
            raise InvalidParamError(f"Query parameter {name} must be an integer")
        if digits.startswith("-") or not digits.strip("0"):
            raise InvalidParamError(f"Query parameter {name} must be a positive integer")
        return _MAX_DIMENSION if len(digits.lstrip("0")) > 5 else min(int(digits), _MAX_DIMENSION)  # noqa: PLR2004 - far beyond the largest picture

    def count(self, name: str, *, default: int | None = None) -> int:
        """Parse an integer of at least 0.

        Raises MissingParamError when it is absent without a default, InvalidParamError when it is negative or no
        integer.
        """
        text = self._fields.get(name)
        if text is None:
            if default is None:
                raise MissingParamError(f"Missing required integer query parameter {name}")
            return default
        if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
            raise InvalidParamError(f"Query parameter {name} must be an integer")
        if text.startswith("-"):
            raise InvalidParamError(f"Query parameter {name} must be a positive integer.")
        return int(text)

    def choice(self, name: str, choices: type[Choice]) -> Choice | None:
        """Parse one of an enumeration's values. Raises InvalidParamError for any other."""
        text = self._fields.get(name)
        if text is None:
            return None
        try:
            return choices(text)
        except ValueError:
            words = ", ".join(sorted(choices))
            raise InvalidParamError(f"Query parameter {name} must be one of {words}") from None

    def wait_ms(self, *, at_most_ms: int) -> int:
        """Parse `timeout_ms`: how long to wait for content, in ms, at most as the operator allows.

        Raises InvalidParamError.
        """
        text = self._fields.get("timeout_ms")
        if text is None:
            return min(_DEFAULT_WAIT_MS, at_most_ms)
        if not re.fullmatch(r"[0-9]+", text, re.ASCII):
            raise InvalidParamError("Query parameter timeout_ms must be a non-negative integer")
        return at_most_ms if len(text.lstrip("0")) > _MAX_WAIT_DIGITS else min(int(text), at_most_ms)

    def flag(self, name: str, *, default: bool) -> bool:
        """Parse `true` or `false`. Raises InvalidParamError for anything else."""
        text = self._fields.get(name)
        if text is None:
            return default
        if text not in {"true", "false"}:
            raise InvalidParamError(f"Boolean query parameter {name!r} must be one of ['true', 'false']")
        return text == "true"


def path_segments(request: web.Request, count: int) -> list[str]:
    """Decode the last segments of the raw path, each on its own, so that %2F never makes a segment.

    Dot segments, which %2F may hide, are refused: a proxy that resolves them applies the rules of another path.
    """
    segments = request.rel_url.raw_path.split("/")[-count:]
    return [_decode(segment) for segment in segments]


def _decode(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment).decode("utf-8", "strict") if "%" in segment else segment
    except UnicodeDecodeError as exc:
        raise InvalidParamError("the path is not percent-encoded UTF-8") from exc
    if not _DOT_SEGMENTS.isdisjoint(text.split("/")):
        raise InvalidParamError("the path may not contain dot segments")
    return text


def parse_media_path(request: web.Request, behind: int = 0) -> tuple[Mxc, str | None]:
    """Parse /{serverName}/{mediaId} and, where the route has one, /{fileName}; `behind` fixed segments follow.

    Raises InvalidParamError when a segment is invalid.
    """
    if behind:
        server_name, media_id = path_segments(request, 2 + behind)[:2]
        return note_mxc(parse_mxc(server_name, media_id)), None
    if "file_name" not in request.match_info:
        server_name, media_id = path_segments(request, 2)
        return note_mxc(parse_mxc(server_name, media_id)), None
    server_name, media_id, file_name = path_segments(request, 3)
    if "/" in file_name:
        raise InvalidParamError("the file name may not contain '/'")
    return note_mxc(parse_mxc(server_name, media_id)), parse_file_name(file_name)


def note_mxc(mxc: Mxc) -> Mxc:
    """Say in the current request's record which media it is about."""
    record = current_record()
    if record is not None:
        record.mxc = mxc
    return mxc


def parse_file_name(text: str | None) -> str | None:
    """Parse a file name; an empty one counts as none.

    Raises InvalidParamError for NUL, or more than 2048 bytes of UTF-8.
    """
    if not text:
        return None
    if "\0" in text:
        raise InvalidParamError("the file name may not contain NUL")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_UPLOAD_NAME_BYTES:
        raise InvalidParamError(f"the file name is longer than {MAX_UPLOAD_NAME_BYTES} bytes")
    return text


def parse_content_type(header: str | None) -> str:
    """Parse a Content-Type, keeping its parameters; application/octet-stream without one. Raises InvalidParamError."""
    if header is None or not header.strip():
        return DEFAULT_CONTENT_TYPE
    if not is_content_type(header):
        raise InvalidParamError(f"the Content-Type must be at most {MAX_CONTENT_TYPE_CHARS} printable ASCII characters")
    return header.strip()


def thumbnail_spec(query: Query) -> ThumbnailSpec:
    """Parse the query of a thumbnail: width, height, method, animated.

    Raises InvalidParamError when the method is unknown.
    """
    width, height = query.positive("width"), query.positive("height")
    method = query.text("method") or ThumbnailMethod.SCALE
    if method not in set(ThumbnailMethod):
        raise InvalidParamError("Query parameter method must be one of ['crop', 'scale']")
    return ThumbnailSpec(width, height, ThumbnailMethod(method), query.flag("animated", default=False))
