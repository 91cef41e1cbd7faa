"""What a client is told when another server's media could not be fetched."""

from mediarepo.errors import (
    MatrixError,
    NotFoundError,
    NotYetUploadedError,
    RemoteTooLargeError,
    RemoteUnavailableError,
)
from mediarepo.model.remote_media import FetchError, FetchReason

_WORDS = {
    FetchReason.NO_SIGNING_KEY: "this server has no key to ask other servers with",
    FetchReason.TOO_SLOW: "the other server is too slow",
    FetchReason.BROKEN_OFF: "the other server broke off",
    FetchReason.NOT_UNDERSTOOD: "the other server's answer cannot be understood",
    FetchReason.SIGNATURE_REFUSED: "the other server does not accept this server's signature",
    FetchReason.FORBIDDEN: "the other server refuses",
    FetchReason.RATE_LIMITED: "the other server asks for patience",
    FetchReason.SERVER_ERROR: "the other server failed",
}


def refusal_of(error: FetchError) -> MatrixError:
    """Say it in Matrix words, without what only the operator should know."""
    match error.reason:
        case FetchReason.NOT_FOUND | FetchReason.DENIED:
            return NotFoundError("media not found")
        case FetchReason.NOT_YET_UPLOADED:
            return NotYetUploadedError("the media has not been uploaded yet")
        case FetchReason.TOO_LARGE:
            return RemoteTooLargeError("the other server's media is too large")
        case reason:
            return RemoteUnavailableError(_WORDS.get(reason, "the other server cannot be reached"), retry_after_s=10)
