"""Why something outside could not be had."""

from enum import StrEnum


class OutboundReason(StrEnum):
    """What stood in the way."""

    FORBIDDEN_ADDRESS = "forbidden_address"
    NAME_NOT_FOUND = "name_not_found"
    UNREACHABLE = "unreachable"
    TLS_FAILED = "tls_failed"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    BROKEN_OFF = "broken_off"
    BAD_URL = "bad_url"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    ENCODED = "encoded"
    NOT_JSON = "not_json"
    NOT_HTTP = "not_http"


class OutboundError(Exception):
    """A request to somebody else's server failed; the message is for the operator and names the host."""

    def __init__(self, reason: OutboundReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
