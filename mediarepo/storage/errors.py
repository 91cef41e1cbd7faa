"""S3 error responses, and what they mean for the operator."""

import html
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import aiohttp

from mediarepo.errors import TooLargeError, UnavailableError
from mediarepo.storage.error_hints import HINTS
from mediarepo.storage.transport import ConnectTimeoutError, MalformedResponseError, TruncatedResponseError


class StorageError(UnavailableError):
    """S3 answered something that no retry mends: `message` is for clients, `hint` (and str()) for the operator.

    To clients every one of these is an outage, for none is the doing of those who ask.
    """

    def __init__(self, hint: str, *, retry_after_s: int = 60) -> None:
        super().__init__("The media storage cannot be reached just now", retry_after_s=retry_after_s)
        self.hint = hint

    def __str__(self) -> str:
        return self.hint


class WrongLengthError(StorageError):
    """An object has another length than the database knows."""


class ObjectMissingError(StorageError):
    """The bucket answers and has no object under this key."""

    def __init__(self, object_key: str) -> None:
        super().__init__(f"there is no object {object_key}")
        self.object_key = object_key


class UploadGoneError(StorageError):
    """There is no such multipart upload any more: completed, or aborted by somebody else."""


class UnsupportedRequestError(StorageError):
    """The server does not know this kind of request, or not in this form; another kind may do."""


class UnknownLengthError(StorageError):
    """The server answered without saying how long the object is, and nobody else knows."""


class StoreMisconfiguredError(StorageError):
    """The store cannot work as it is configured; the message tells the operator why."""


class StorageRefusesWritesError(StorageError):
    """The store takes no new objects until somebody does something: it is full, or the key may not write."""


class ObjectTooLargeError(TooLargeError, StorageError):
    """The server takes no object of this size."""

    def __init__(self, hint: str) -> None:
        StorageError.__init__(self, hint)
        self.message = "the media storage takes no object of this size"
        self.retry_after_s = None


_RETRY_AFTER_S = 5
"""What clients are told to wait where S3 does not say."""
_LONGEST_ASKED_S = 3600


def parse_retry_after(value: str | None) -> int | None:
    """Read a Retry-After header in seconds (RFC 9110, 10.2.3); dates, which S3 servers do not send, count as none."""
    if value is None or not value.strip().isascii() or not value.strip().isdecimal():
        return None
    return min(int(value.strip()[:9]), _LONGEST_ASKED_S)


class StorageUnavailableError(StorageError):
    """S3 cannot serve just now.

    `transient` marks what a second try may mend at once, `timed_out` what was silent for too long; `asked_s` is what
    S3 itself wants waited.
    """

    def __init__(
        self, hint: str, *, asked_s: int | None = None, transient: bool = False, timed_out: bool = False
    ) -> None:
        super().__init__(hint, retry_after_s=_RETRY_AFTER_S if asked_s is None else max(asked_s, 1))
        self.asked_s = asked_s
        self.transient = transient
        self.timed_out = timed_out


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
_FULL_CODES = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientStorage",
        "QuotaExceeded",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)
_FULL_STATUS = 507
_FORBIDDEN_CODES = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden"})
_WRONG_KEY = re.compile(r"no such key|invalid signature", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3ErrorResponse:
    """An answer that is no success; `code` is empty when it was not S3 that answered.

    `region` and `endpoint` are what the server says should have been used, `retry_after_s` how long it wants to be left
    alone.
    """

    status: int
    code: str = ""
    message: str = ""
    region: str = ""
    endpoint: str = ""
    retry_after_s: int | None = None

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

    @property
    def refuses_writes(self) -> bool:
        """Whether, as the answer to a write, it means that nothing more is taken: full, or the key may not write."""
        if self.code in _FULL_CODES or self.status == _FULL_STATUS:
            return True
        return self.code in _FORBIDDEN_CODES and not _WRONG_KEY.search(self.message)


def parse_error_response(status: int, body: bytes, *, retry_after: str | None = None) -> S3ErrorResponse:
    """Read an S3 error document (API reference: Error responses); anything else leaves the code empty."""
    retry_after_s = parse_retry_after(retry_after)
    found = {name.decode(): html.unescape(text.decode("utf-8", "replace")) for name, text in _TAG.findall(body)}
    if "Code" not in found:
        return S3ErrorResponse(status=status, message=_first_words(body), retry_after_s=retry_after_s)
    return S3ErrorResponse(
        status=status,
        code=found["Code"],
        message=found.get("Message", ""),
        region=found.get("Region", ""),
        endpoint=found.get("Endpoint", ""),
        retry_after_s=retry_after_s,
    )


def _first_words(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split())


OnRequest = Callable[[str, str, float, str | None], None]
"""Hears of every request to S3: its name, its outcome as `outcome_of` says it, or "ok", the seconds until S3 had
answered, and the object key, if it is about one object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """Where a request went: what an operator can recognise in the configuration."""

    endpoint_url: str
    region: str
    bucket: str


_WRONG_REGION_CODES = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
    }
)
_EXPECTING = re.compile(r"expecting '([^']+)'|the region \S+ is wrong; expecting (\S+)")


def explain_error_response(refusal: S3ErrorResponse, place: S3Location) -> str:
    """Say what the operator can do about an answer."""
    if not refusal.code:
        return _explain_foreign_answer(refusal, place)
    region = _expected_region(refusal, place)
    if region:
        return f"this server expects region {region}, you sent {place.region}"
    for hint in HINTS:
        if refusal.code in hint.codes and hint.message.search(refusal.message):
            return hint.words.format(
                endpoint_url=place.endpoint_url,
                region=place.region,
                bucket=place.bucket,
                message=refusal.message or refusal.code,
                endpoint=f"{refusal.endpoint}: " if refusal.endpoint else "",
            )
    return f"{place.endpoint_url} answered {refusal.status} {refusal.code}: {refusal.message}"


def _expected_region(refusal: S3ErrorResponse, place: S3Location) -> str:
    if refusal.code not in _WRONG_REGION_CODES:
        return ""
    said = _EXPECTING.search(refusal.message)
    region = refusal.region or (said and (said[1] or said[2])) or ""
    if not region and "scope" in refusal.message:
        return f"another than yours ({refusal.message}; Garage's is usually garage)"
    return "" if region == place.region else region


def _explain_foreign_answer(refusal: S3ErrorResponse, place: S3Location) -> str:
    if refusal.status >= 500:  # noqa: PLR2004 - server errors
        return f"{place.endpoint_url} is no S3 server, or it or its proxy is in trouble ({refusal.status})"
    if 300 <= refusal.status < 400:  # noqa: PLR2004 - redirections
        return (
            f"{place.endpoint_url} redirects elsewhere ({refusal.status}): correct endpoint_url, region or path_style"
        )
    if refusal.message.startswith("<"):
        return f"{place.endpoint_url} is not an S3 server: it answered {refusal.status} with a web page"
    said = f"{refusal.status} {refusal.message[:80]}".strip()
    return f"{place.endpoint_url} does not answer like an S3 server ({said})"


_FAILURES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[BaseException], str]], ...] = (
    (socket.gaierror, lambda _: "its host name does not resolve"),
    (ssl.SSLCertVerificationError, lambda exc: f"its certificate is not trusted ({_verify_message(exc)}): set ca_file"),
    (ssl.SSLError, lambda exc: f"it does not speak TLS there ({exc.args[-1]}): is it http:// or another port?"),
    (ConnectionRefusedError, lambda _: "nothing listens there"),
    (
        (aiohttp.ConnectionTimeoutError, ConnectTimeoutError),
        lambda _: "no connection came about in time, or none of max_connections was free",
    ),
    (TimeoutError, lambda _: "it did not answer in time"),
    ((aiohttp.ClientPayloadError, TruncatedResponseError), lambda _: "it stopped in the middle of an answer"),
    (
        (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError),
        lambda _: "it closed the connection without an answer",
    ),
    (
        (aiohttp.ClientResponseError, MalformedResponseError),
        lambda _: "it does not answer in HTTP: is it https:// or another port?",
    ),
)


def explain_failure(exc: BaseException, place: S3Location) -> str:
    """Say why no answer came."""
    reasons = tuple(_reasons(exc))
    for kind, words in _FAILURES:
        for reason in reasons:
            if isinstance(reason, kind):
                return f"{place.endpoint_url} cannot be reached: {words(reason)}"
    return f"{place.endpoint_url} cannot be reached: {type(exc).__name__}"


def _reasons(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        wrapped = getattr(exc, "kwargs", {}).get("error") or getattr(exc, "certificate_error", None)
        exc = wrapped or getattr(exc, "os_error", None) or exc.__cause__ or exc.__context__


def _verify_message(exc: BaseException) -> str:
    return str(getattr(exc, "verify_message", "") or exc)


_MISSING_CODES = frozenset({"NoSuchKey", "NoSuchVersion"})


def error_from_response(
    refusal: S3ErrorResponse, place: S3Location, *, object_key: str | None = None, writing: bool = False
) -> StorageError:
    """Choose the error for an answer; only NoSuchKey about an object that was asked for means missing."""
    if object_key is not None and refusal.code in _MISSING_CODES:
        return ObjectMissingError(object_key)
    words = explain_error_response(refusal, place)
    if writing and refusal.code == "EntityTooLarge":
        return ObjectTooLargeError(words)
    if writing and refusal.refuses_writes:
        return StorageRefusesWritesError(words)
    if refusal.is_outage:
        return StorageUnavailableError(words, transient=refusal.is_transient, asked_s=refusal.retry_after_s)
    return UploadGoneError(words) if refusal.code == "NoSuchUpload" else StorageError(words)


def error_from_exception(exc: BaseException, place: S3Location) -> StorageUnavailableError:
    """Choose the error for an answer that never came; silence is not asked again, everything else is."""
    timed_out = isinstance(exc, TimeoutError)
    return StorageUnavailableError(explain_failure(exc, place), transient=not timed_out, timed_out=timed_out)


def outcome_of(error: StorageError) -> str:
    """Sum an error up in one word, for counting."""
    if isinstance(error, ObjectMissingError):
        return "missing"
    return "unavailable" if isinstance(error, StorageUnavailableError) else "refused"
