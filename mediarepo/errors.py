"""Matrix errors; their HTTP statuses are in `mediarepo.web.error_responses`."""


class MatrixError(Exception):
    """Something a client is told about: `message` is the JSON body's `error`.

    Subclasses are the whole list of refusals; each stands in the status and errcode table of web/.
    """

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class MissingTokenError(MatrixError):
    """No access token came with a request that needs one."""


class UnauthorizedError(MatrixError):
    """Another server's request is not signed as it should be (server-server API, request authentication)."""


class VerificationBusyError(MatrixError):
    """There is no place just now to learn whether another server's request is signed as it should be."""


class UnknownTokenError(MatrixError):
    """The homeserver does not know the access token."""

    def __init__(self, message: str, *, soft_logout: bool = False) -> None:
        super().__init__(message)
        self.soft_logout = soft_logout


class UserLockedError(MatrixError):
    """The account is locked (client-server API, account locking)."""


class GuestAccessForbiddenError(MatrixError):
    """A guest asked for what only registered users may have."""


class ForbiddenError(MatrixError):
    """The requester may not do this."""


class QuotaExceededError(MatrixError):
    """The user has no room left; `info_uri` is a page about it (client-server API, M_USER_LIMIT_EXCEEDED)."""

    def __init__(self, message: str, *, info_uri: str | None = None) -> None:
        super().__init__(message)
        self.info_uri = info_uri


class UploadsRefusedError(MatrixError):
    """The storage takes nothing new until its operator does something: it is full, or may not be written to."""


class UnknownDeviceError(MatrixError):
    """An application service named a device that its user does not have."""


class NotFoundError(MatrixError):
    """There is no such media, or none that the requester may know of."""


class ContentLostError(NotFoundError):
    """The media is known, but S3 has lost its content."""


class MediaHostUnknownError(MatrixError):
    """The request's Host belongs to no configured homeserver."""


class UnrecognizedPathError(MatrixError):
    """There is no such endpoint."""


class UnrecognizedMethodError(MatrixError):
    """The endpoint exists but does not answer this method; `allowed` are those it does."""

    def __init__(self, message: str, *, allowed: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.allowed = allowed


class InvalidParamError(MatrixError):
    """A parameter has a value it cannot have."""


class NotJsonError(MatrixError):
    """The body is not JSON."""


class BadJsonError(MatrixError):
    """The body is JSON of another shape than it should be."""


class MissingParamError(MatrixError):
    """A required parameter is absent."""


class UnsupportedEncodingError(MatrixError):
    """The body is encoded on its way in a form that is not undone here (RFC 9112, section 6.1)."""


class BadRequestError(MatrixError):
    """The request is not HTTP as it should be, or its body ended early."""


class CannotOverwriteMediaError(MatrixError):
    """The media id has content already, or is just getting it."""


class TooLargeError(MatrixError):
    """The body is larger than the configured upload limit."""


class TooSlowError(MatrixError):
    """The body arrives too slowly while other uploads wait for memory."""


class LimitExceededError(MatrixError):
    """Too many requests of this kind are waiting already."""


class CannotThumbnailError(MatrixError):
    """The media's content cannot be thumbnailed, or not to these dimensions."""


class NotYetUploadedError(MatrixError):
    """The media id was created but its content has not arrived yet."""


class RangeNotSatisfiableError(MatrixError):
    """No byte of the media lies within the requested range (RFC 9110 section 15.5.17)."""

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class HomeserverUnavailableError(MatrixError):
    """The homeserver that must judge the token cannot be reached, or answers nonsense."""


class RemoteUnavailableError(MatrixError):
    """Another server's media cannot be had just now, for whichever reason; the log says which."""


class PreviewError(MatrixError):
    """A web page cannot be previewed, for whichever reason; the log says which."""


class RemoteTooLargeError(MatrixError):
    """Another server's media is larger than what is fetched from other servers."""


class UnavailableError(MatrixError):
    """Storage or database cannot be reached just now; asking again later may work."""
