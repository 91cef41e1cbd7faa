"""What an S3 server says when it refuses."""

import html
import re
from dataclasses import dataclass

_TAG = re.compile(rb"<(Code|Message|Region|Endpoint)>\s*([^<]*?)\s*</\1>")
_TRANSIENT_CODES = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "TooManyRequests",
    }
)
_TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})
_UNAVAILABLE_STATUSES = frozenset({401, 403, 507})
_UNAVAILABLE_CODES = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InsufficientStorage",
        "InvalidRegionName",
        "NoSuchBucket",
        "PermanentRedirect",
        "QuotaExceeded",
        "TemporaryRedirect",
        "XMinioStorageFull",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is no success; `code` is empty when it was not S3 that answered.

    `region` and `endpoint` are what the server says should have been used.
    """

    status: int
    code: str = ""
    message: str = ""
    region: str = ""
    endpoint: str = ""

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.code in _TRANSIENT_CODES or self.status in _TRANSIENT_STATUSES

    @property
    def is_outage(self) -> bool:
        """Whether the store as a whole cannot serve, whatever is asked of it."""
        if self.is_transient or not self.code or self.code in _UNAVAILABLE_CODES:
            return True
        return self.status in _UNAVAILABLE_STATUSES or 300 <= self.status < 400  # noqa: PLR2004 - redirections


def parse_refusal(status: int, body: bytes) -> Refusal:
    """Read an S3 error document (API reference: Error responses); anything else leaves the code empty."""
    found = {name.decode(): html.unescape(text.decode("utf-8", "replace")) for name, text in _TAG.findall(body)}
    if "Code" not in found:
        return Refusal(status=status, message=_first_words(body))
    return Refusal(
        status=status,
        code=found["Code"],
        message=found.get("Message", ""),
        region=found.get("Region", ""),
        endpoint=found.get("Endpoint", ""),
    )


def _first_words(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split())
