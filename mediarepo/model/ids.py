"""Random names: media ids and object keys."""

import base64
import functools
import secrets
import string
from datetime import UTC, datetime

from mediarepo.model.media import StoreClass

MEDIA_ID_CHARS = 30
"""No homeserver makes ids of this length (24, 27, 32 and 64 are taken), so they can be given back to one later."""

MARKER_NAME = "installation"
"""Under a store's prefix, the object that says whose it is."""

_BASE36 = string.digits + string.ascii_lowercase
_TIME_CHARS = 9
_HOUR_MS = 3_600_000
_RANDOM_BYTES = 20
_RANDOM_CHARS = _RANDOM_BYTES * 8 // 5
_INTENDED = "0"
"""Stands first among the random characters, where base 32 has none such."""


def new_media_id() -> str:
    """Return a random media id of about 179 bits, whose first character is never taken for a command line option."""
    while True:
        media_id = base64.urlsafe_b64encode(secrets.token_bytes(MEDIA_ID_CHARS)).decode()[:MEDIA_ID_CHARS]
        if media_id[0] not in "-_":
            return media_id


def new_object_key(prefix: str, store_class: StoreClass, now_ms: int, *, intended: bool = False) -> str:
    """Make a key that is never used twice: PREFIX/CLASS/yyyymmddhh/TIME-RANDOM, with the time in ms, base 36.

    The hour lets the sweep list old keys only, the exact time lets it judge each; 155 random bits follow. `intended`
    keys tell of themselves that the database has an intent with them before their object is made.
    """
    random = base64.b32encode(secrets.token_bytes(_RANDOM_BYTES)).decode().lower()
    if intended:
        random = _INTENDED + random[1:]
    return f"{first_key_of(prefix, store_class, now_ms)}-{random}"


def first_key_of(prefix: str, store_class: StoreClass, ms: int) -> str:
    """Return the prefix of keys made at a time (ms since 1970); keys made before sort before it."""
    return f"{prefix}/{store_class}/{hour_of(ms)}/{_base36(ms)}"


def is_intended(object_key: str) -> bool:
    """Return whether a key was recorded in the database before its object was made."""
    return object_key_ts(object_key) is not None and object_key[-_RANDOM_CHARS] == _INTENDED


def new_name(now_ms: int) -> str:
    """Return the last part of a unique key, for objects outside the folders by hour."""
    return f"{_base36(now_ms)}-{base64.b32encode(secrets.token_bytes(_RANDOM_BYTES)).decode().lower()}"


def hour_of(ms: int) -> str:
    """Format the hour of a time (ms since 1970) as yyyymmddhh, in UTC."""
    return _hour(ms // _HOUR_MS)


@functools.lru_cache(maxsize=16)
def _hour(hours: int) -> str:
    return datetime.fromtimestamp(hours * _HOUR_MS / 1000, tz=UTC).strftime("%Y%m%d%H")


def object_key_ts(object_key: str) -> int | None:
    """Return when an object key was made, in ms since 1970; None when it is not one of ours."""
    name = object_key.rpartition("/")[2]
    time, dash, random = name.partition("-")
    if not dash or len(time) != _TIME_CHARS or len(random) != _RANDOM_CHARS:
        return None
    if not set(time) <= set(_BASE36):
        return None
    return int(time, 36)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits.rjust(_TIME_CHARS, "0")
