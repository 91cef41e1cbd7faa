"""Another server's keys."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeysOfServer:
    """Keys by id, 32 bytes each; times in ms since 1970."""

    verify_keys: Mapping[str, bytes]
    valid_until_ts: int
    fetched_ts: int
