"""The one table from refusals to HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass

from mediarepo import errors


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a refusal looks on the wire (client-server API, standard error response)."""

    status: int
    errcode: str


REFUSALS: Mapping[type[errors.MatrixError], Refusal] = {
    errors.MissingTokenError: Refusal(401, "M_MISSING_TOKEN"),
    errors.UnauthorizedError: Refusal(401, "M_UNAUTHORIZED"),
    errors.VerificationBusyError: Refusal(503, "M_UNKNOWN"),
    errors.UnknownTokenError: Refusal(401, "M_UNKNOWN_TOKEN"),
    errors.UserLockedError: Refusal(401, "M_USER_LOCKED"),
    errors.GuestAccessForbiddenError: Refusal(403, "M_GUEST_ACCESS_FORBIDDEN"),
    errors.ForbiddenError: Refusal(403, "M_FORBIDDEN"),
    errors.QuotaExceededError: Refusal(403, "M_FORBIDDEN"),
    errors.UnknownDeviceError: Refusal(400, "M_UNKNOWN_DEVICE"),
    errors.ContentLostError: Refusal(404, "M_NOT_FOUND"),
    errors.RemoteUnavailableError: Refusal(502, "M_UNKNOWN"),
    errors.PreviewError: Refusal(502, "M_UNKNOWN"),
    errors.RemoteTooLargeError: Refusal(502, "M_TOO_LARGE"),
    errors.NotFoundError: Refusal(404, "M_NOT_FOUND"),
    errors.MediaHostUnknownError: Refusal(404, "M_NOT_FOUND"),
    errors.UnrecognizedPathError: Refusal(404, "M_UNRECOGNIZED"),
    errors.UnrecognizedMethodError: Refusal(405, "M_UNRECOGNIZED"),
    errors.InvalidParamError: Refusal(400, "M_INVALID_PARAM"),
    errors.NotJsonError: Refusal(400, "M_NOT_JSON"),
    errors.BadJsonError: Refusal(400, "M_BAD_JSON"),
    errors.MissingParamError: Refusal(400, "M_MISSING_PARAM"),
    errors.BadRequestError: Refusal(400, "M_UNKNOWN"),
    errors.UnsupportedEncodingError: Refusal(501, "M_UNRECOGNIZED"),
    errors.CannotOverwriteMediaError: Refusal(409, "M_CANNOT_OVERWRITE_MEDIA"),
    errors.TooLargeError: Refusal(413, "M_TOO_LARGE"),
    errors.TooSlowError: Refusal(408, "M_UNKNOWN"),
    errors.LimitExceededError: Refusal(429, "M_LIMIT_EXCEEDED"),
    errors.CannotThumbnailError: Refusal(400, "M_UNKNOWN"),
    errors.NotYetUploadedError: Refusal(504, "M_NOT_YET_UPLOADED"),
    errors.RangeNotSatisfiableError: Refusal(416, "M_UNKNOWN"),
    errors.HomeserverUnavailableError: Refusal(502, "M_UNKNOWN"),
    errors.UnavailableError: Refusal(503, "M_UNKNOWN"),
}


def refusal_for(error: errors.MatrixError) -> Refusal:
    """Find how an error is told, by its nearest class in the table."""
    for cls in type(error).__mro__:
        if cls in REFUSALS:
            return REFUSALS[cls]
    return Refusal(500, "M_UNKNOWN")


def refusal_body(error: errors.MatrixError) -> dict[str, object]:
    """Write the JSON that a client is told."""
    body: dict[str, object] = {"errcode": refusal_for(error).errcode, "error": error.message}
    match error:
        case errors.UnknownTokenError():
            body["soft_logout"] = error.soft_logout
        case errors.UserLockedError():
            body["soft_logout"] = True
        case errors.LimitExceededError() if error.retry_after_s is not None:
            body["retry_after_ms"] = error.retry_after_s * 1000
        case errors.QuotaExceededError() if error.info_uri is not None:
            body |= {"errcode": "M_USER_LIMIT_EXCEEDED", "info_uri": error.info_uri, "can_upgrade": False}
        case _:
            pass
    return body


def refusal_headers(error: errors.MatrixError) -> dict[str, str]:
    """Write the headers that go with a refusal."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    if isinstance(error, errors.UnrecognizedMethodError) and error.allowed:
        headers["Allow"] = ", ".join(sorted({*error.allowed, "OPTIONS"}))
    return headers
