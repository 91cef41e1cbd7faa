"""Matrix errors; their HTTP statuses are in `mediarepo.web.error_responses`."""


class MatrixError(Exception):
    """An error that a client is told: `message` is the JSON body's `error`.

    Its subclasses are all errors there are; each has a status and errcode in the table of
    `mediarepo.web.error_responses`.
    """

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class MissingTokenError(MatrixError):
    """The request needs an access token and has none."""


class UnauthorizedError(MatrixError):
    """Another server's request is not signed correctly (server-server API, request authentication)."""


class VerificationBusyError(MatrixError):
    """Too many signatures wait for their keys; the request could not be verified."""


class UnknownTokenError(MatrixError):
    """The homeserver does not know the access token."""

    def __init__(self, message: str, *, soft_logout: bool = False) -> None:
        super().__init__(message)
        self.soft_logout = soft_logout


class UserLockedError(MatrixError):
    """The account is locked (client-server API, account locking)."""


class GuestAccessForbiddenError(MatrixError):
    """A guest asked for what only registered users may do."""


class ForbiddenError(MatrixError):
    """The requester may not do this."""


class QuotaExceededError(MatrixError):
    """The upload would exceed the user's quota (client-server API, M_USER_LIMIT_EXCEEDED).

    `info_uri` is a page that explains the quota.
    """

    def __init__(self, message: str, *, info_uri: str | None = None) -> None:
        super().__init__(message)
        self.info_uri = info_uri


class UploadsRefusedError(MatrixError):
    """The storage refuses writes until its operator acts: it is full, or read-only."""


class UnknownDeviceError(MatrixError):
    """An application service named a device that its user does not have."""


class NotFoundError(MatrixError):
    """The media does not exist, or the requester may not know that it does."""


class ContentLostError(NotFoundError):
    """The media exists, but S3 has lost its content."""


class MediaHostUnknownError(MatrixError):
    """The request's Host belongs to no configured homeserver."""


class UnrecognizedPathError(MatrixError):
    """There is no such endpoint."""


class UnrecognizedMethodError(MatrixError):
    """The endpoint exists but has no such method; `allowed` lists those it has."""

    def __init__(self, message: str, *, allowed: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.allowed = allowed


class InvalidParamError(MatrixError):
    """A parameter has an invalid value."""


class NotJsonError(MatrixError):
    """The body is not JSON."""


class BadJsonError(MatrixError):
    """The body is JSON of the wrong shape."""


class MissingParamError(MatrixError):
    """A required parameter is missing."""


class UnsupportedEncodingError(MatrixError):
    """The body has a transfer coding that is not supported (RFC 9112, section 6.1)."""


class BadRequestError(MatrixError):
    """The request is malformed HTTP, or its body ended early."""


class CannotOverwriteMediaError(MatrixError):
    """The media id has content already, or is being filled."""


class TooLargeError(MatrixError):
    """The body is larger than the configured upload limit."""


class TooSlowError(MatrixError):
    """The body arrives too slowly while other uploads wait for memory."""


class LimitExceededError(MatrixError):
    """A rate limit, or too many requests of this kind are waiting."""


class CannotThumbnailError(MatrixError):
    """The content cannot be thumbnailed, or not to these dimensions."""


class NotYetUploadedError(MatrixError):
    """The media id was created but its content has not arrived yet."""


class PreconditionFailedError(MatrixError):
    """The media is not the one that If-Match or If-Unmodified-Since is about (RFC 9110 section 15.5.13)."""


class RangeNotSatisfiableError(MatrixError):
    """No byte of the media lies within the requested range (RFC 9110 section 15.5.17)."""

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class HomeserverUnavailableError(MatrixError):
    """The homeserver that validates the token cannot be reached, or its answer is invalid."""


class RemoteUnavailableError(MatrixError):
    """Another server's media cannot be fetched now; the log says why."""


class PreviewError(MatrixError):
    """A web page cannot be previewed; the log says why."""


class RemoteTooLargeError(MatrixError):
    """Another server's media is larger than the limit for remote media."""


class UnavailableError(MatrixError):
    """Storage or database is unavailable; a retry later may work."""
