"""Other servers' keys, and why remote media could not be fetched."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class KeysOfServer:
    """Keys by id, 32 bytes each; times in ms since 1970."""

    verify_keys: Mapping[str, bytes]
    valid_until_ts: int
    fetched_ts: int


class FetchReason(StrEnum):
    """Why a fetch failed; for logs, metrics and the operator."""

    NO_SIGNING_KEY = "no_signing_key"
    DENIED = "denied"
    FORBIDDEN_ADDRESS = "forbidden_address"
    NOT_DISCOVERED = "not_discovered"
    UNREACHABLE = "unreachable"
    TLS_FAILED = "tls_failed"
    TOO_SLOW = "too_slow"
    BROKEN_OFF = "broken_off"
    NOT_UNDERSTOOD = "not_understood"
    NOT_FOUND = "not_found"
    NOT_YET_UPLOADED = "not_yet_uploaded"
    TOO_LARGE = "too_large"
    SIGNATURE_REFUSED = "signature_refused"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"


class FetchError(Exception):
    """Another server's media could not be fetched; the message is for the operator, and names no media."""

    def __init__(self, reason: FetchReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
