"""Why another server's media cannot be had, told by what came back."""

from collections.abc import Iterator
from contextlib import contextmanager

from mediarepo.federation.multipart import MultipartError
from mediarepo.model.fetching import FetchError, FetchReason
from mediarepo.outbound.errors import OutboundError, OutboundReason

_REASONS = {
    OutboundReason.FORBIDDEN_ADDRESS: FetchReason.FORBIDDEN_ADDRESS,
    OutboundReason.NAME_NOT_FOUND: FetchReason.NOT_DISCOVERED,
    OutboundReason.UNREACHABLE: FetchReason.UNREACHABLE,
    OutboundReason.TLS_FAILED: FetchReason.TLS_FAILED,
    OutboundReason.TOO_SLOW: FetchReason.TOO_SLOW,
    OutboundReason.TOO_LARGE: FetchReason.NOT_UNDERSTOOD,
    OutboundReason.BROKEN_OFF: FetchReason.BROKEN_OFF,
    OutboundReason.BAD_URL: FetchReason.FORBIDDEN_ADDRESS,
}
_STATUSES = {
    401: FetchReason.SIGNATURE_REFUSED,
    403: FetchReason.FORBIDDEN,
    404: FetchReason.NOT_FOUND,
    413: FetchReason.TOO_LARGE,
    429: FetchReason.RATE_LIMITED,
    503: FetchReason.UNREACHABLE,
    504: FetchReason.TOO_SLOW,
}
_ERRCODES = {
    "M_NOT_YET_UPLOADED": FetchReason.NOT_YET_UPLOADED,
    "M_TOO_LARGE": FetchReason.TOO_LARGE,
}
_SERVER_ERRORS = 500


def failure_of(status: int, errcode: str | None, who: str) -> FetchError:
    """Translate a refusal."""
    reason = _ERRCODES.get(errcode or "") or _STATUSES.get(status)
    if reason is None:
        reason = FetchReason.SERVER_ERROR if status >= _SERVER_ERRORS else FetchReason.NOT_UNDERSTOOD
    return FetchError(reason, f"{who} answers {status} {errcode or ''}".strip())


@contextmanager
def translated() -> Iterator[None]:
    """Turn what goes wrong on the way into FetchError."""
    try:
        yield
    except OutboundError as exc:
        raise FetchError(_REASONS.get(exc.reason, FetchReason.NOT_UNDERSTOOD), str(exc)) from exc
    except MultipartError as exc:
        raise FetchError(FetchReason.NOT_UNDERSTOOD, str(exc)) from exc
