"""What can go wrong between this process and an S3 server."""

from mediarepo.errors import UnavailableError


class StorageError(UnavailableError):
    """S3 answered something that no retry mends: `message` is for clients, `hint` (and str()) for the operator.

    To clients every one of these is an outage, for none is the doing of those who ask.
    """

    def __init__(self, hint: str, *, retry_after_s: int = 60) -> None:
        super().__init__("The media storage cannot be reached just now", retry_after_s=retry_after_s)
        self.hint = hint

    def __str__(self) -> str:
        return self.hint


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


class StorageUnavailableError(StorageError):
    """S3 cannot serve just now.

    `transient` marks what a second try may mend at once, `timed_out` what was silent for too long.
    """

    def __init__(self, hint: str, *, retry_after_s: int = 5, transient: bool = False, timed_out: bool = False) -> None:
        super().__init__(hint, retry_after_s=retry_after_s)
        self.transient = transient
        self.timed_out = timed_out
