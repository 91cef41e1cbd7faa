"""Maps errors to HTTP statuses and Matrix error codes, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass

from mediarepo import errors


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """Status and errcode of an error (client-server API, standard error response)."""

    status: int
    errcode: str


REFUSALS: Mapping[type[errors.MatrixError], ErrorResponse] = {
    errors.MissingTokenError: ErrorResponse(401, "M_MISSING_TOKEN"),
    errors.UnauthorizedError: ErrorResponse(401, "M_UNAUTHORIZED"),
    errors.VerificationBusyError: ErrorResponse(503, "M_UNKNOWN"),
    errors.UnknownTokenError: ErrorResponse(401, "M_UNKNOWN_TOKEN"),
    errors.UserLockedError: ErrorResponse(401, "M_USER_LOCKED"),
    errors.GuestAccessForbiddenError: ErrorResponse(403, "M_GUEST_ACCESS_FORBIDDEN"),
    errors.ForbiddenError: ErrorResponse(403, "M_FORBIDDEN"),
    errors.QuotaExceededError: ErrorResponse(403, "M_FORBIDDEN"),
    errors.UploadsRefusedError: ErrorResponse(403, "M_FORBIDDEN"),
    errors.UnknownDeviceError: ErrorResponse(400, "M_UNKNOWN_DEVICE"),
    errors.ContentLostError: ErrorResponse(404, "M_NOT_FOUND"),
    errors.RemoteUnavailableError: ErrorResponse(502, "M_UNKNOWN"),
    errors.PreviewError: ErrorResponse(502, "M_UNKNOWN"),
    errors.RemoteTooLargeError: ErrorResponse(502, "M_TOO_LARGE"),
    errors.NotFoundError: ErrorResponse(404, "M_NOT_FOUND"),
    errors.MediaHostUnknownError: ErrorResponse(404, "M_NOT_FOUND"),
    errors.UnrecognizedPathError: ErrorResponse(404, "M_UNRECOGNIZED"),
    errors.UnrecognizedMethodError: ErrorResponse(405, "M_UNRECOGNIZED"),
    errors.InvalidParamError: ErrorResponse(400, "M_INVALID_PARAM"),
    errors.NotJsonError: ErrorResponse(400, "M_NOT_JSON"),
    errors.BadJsonError: ErrorResponse(400, "M_BAD_JSON"),
    errors.MissingParamError: ErrorResponse(400, "M_MISSING_PARAM"),
    errors.BadRequestError: ErrorResponse(400, "M_UNKNOWN"),
    errors.UnsupportedEncodingError: ErrorResponse(501, "M_UNRECOGNIZED"),
    errors.CannotOverwriteMediaError: ErrorResponse(409, "M_CANNOT_OVERWRITE_MEDIA"),
    errors.TooLargeError: ErrorResponse(413, "M_TOO_LARGE"),
    errors.TooSlowError: ErrorResponse(408, "M_UNKNOWN"),
    errors.LimitExceededError: ErrorResponse(429, "M_LIMIT_EXCEEDED"),
    errors.CannotThumbnailError: ErrorResponse(400, "M_UNKNOWN"),
    errors.NotYetUploadedError: ErrorResponse(504, "M_NOT_YET_UPLOADED"),
    errors.PreconditionFailedError: ErrorResponse(412, "M_UNKNOWN"),
    errors.RangeNotSatisfiableError: ErrorResponse(416, "M_UNKNOWN"),
    errors.HomeserverUnavailableError: ErrorResponse(502, "M_UNKNOWN"),
    errors.UnavailableError: ErrorResponse(503, "M_UNKNOWN"),
}


def error_response_for(error: errors.MatrixError) -> ErrorResponse:
    """Return the entry of an error, by its nearest class in the table."""
    for cls in type(error).__mro__:
        if cls in REFUSALS:
            return REFUSALS[cls]
    return ErrorResponse(500, "M_UNKNOWN")


def error_body(error: errors.MatrixError) -> dict[str, object]:
    """Return the JSON body of an error."""
    body: dict[str, object] = {"errcode": error_response_for(error).errcode, "error": error.message}
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


def error_headers(error: errors.MatrixError) -> dict[str, str]:
    """Return the headers of an error response."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    if isinstance(error, errors.UnrecognizedMethodError) and error.allowed:
        headers["Allow"] = ", ".join(sorted({*error.allowed, "OPTIONS"}))
    return headers
