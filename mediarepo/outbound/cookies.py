"""Cookies of one preview (RFC 6265), for the very host that set them; nothing outlives the preview."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MAX_COOKIES, _MAX_COOKIE_BYTES, _MAX_HEADER_BYTES = 50, 4096, 16 * 1024
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Cookie:
    value: bytes
    secure: bool


def _now() -> datetime:
    return datetime.now(UTC)


class CookieJar:
    """What hosts want to be told again within one preview; a parent domain's cookies are kept for the host alone."""

    def __init__(self, now: Callable[[], datetime] = _now) -> None:
        self._cookies: dict[tuple[str, str, bytes], _Cookie] = {}
        self._now = now
        self.changes = 0
        """How often something was kept; a page may answer differently afterwards."""

    def keep(self, set_cookie: bytes, *, scheme: str, host: str, path: str) -> None:
        """Take a Set-Cookie header of an answer, or leave it alone when the host may not set it."""
        pair, *attributes = set_cookie.split(b";")
        name, equals, value = pair.partition(b"=")
        name, value = (name.strip(), value.strip()) if equals else (b"", pair.strip())
        if len(set_cookie) > _MAX_COOKIE_BYTES or _FORBIDDEN.search(set_cookie) or not (name or value):
            return
        said = _attributes(attributes)
        secure = "secure" in said
        if (secure and scheme != "https") or not _may_set(name, said, host, secure=secure):
            return
        place = said.get("path", "")
        key = host, place if place.startswith("/") else _default_path(path), name
        if self._is_expired(said):
            self._cookies.pop(key, None)
        elif key in self._cookies or len(self._cookies) < _MAX_COOKIES:
            self.changes += self._cookies.get(key) != _Cookie(value, secure)
            self._cookies[key] = _Cookie(value, secure)

    def header(self, *, scheme: str, host: str, path: str) -> bytes | None:
        """Give the Cookie header for a request; None when there is nothing to tell this host."""
        fitting = [
            (place, name, cookie.value)
            for (owner, place, name), cookie in self._cookies.items()
            if owner == host and _path_fits(place, path) and (scheme == "https" or not cookie.secure)
        ]
        fitting.sort(key=lambda one: -len(one[0]))
        text = b"; ".join(name + b"=" + value if name else value for _, name, value in fitting)
        return text if 0 < len(text) <= _MAX_HEADER_BYTES else None

    def _is_expired(self, said: dict[str, str]) -> bool:
        if _NUMBER.fullmatch(said.get("max-age", "")):
            return int(said["max-age"]) <= 0
        try:
            until = parsedate_to_datetime(said.get("expires", "").replace("-", " "))
        except (ValueError, TypeError, IndexError):
            return False
        return until.replace(tzinfo=until.tzinfo or UTC) <= self._now()


def _attributes(pieces: list[bytes]) -> dict[str, str]:
    said: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.decode("latin-1").partition("=")
        said[name.strip().lower()] = value.strip()
    return said


def _may_set(name: bytes, said: dict[str, str], host: str, *, secure: bool) -> bool:
    """Check Domain and the prefixes of names."""
    domain = said.get("domain", "").lower().removeprefix(".")
    if domain and domain != host and not host.endswith(f".{domain}"):
        return False
    lowered = name.lower()
    if lowered.startswith(b"__host-"):
        return secure and not domain and said.get("path") == "/"
    return secure or not lowered.startswith(b"__secure-")


def _default_path(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _path_fits(place: str, path: str) -> bool:
    return path == place or (path.startswith(place) and (place.endswith("/") or path[len(place)] == "/"))
