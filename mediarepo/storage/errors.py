"""What can go wrong between this process and an S3 server."""

from mediarepo.errors import UnavailableError


class StorageError(Exception):
    """S3 answered something that no retry mends; the message is for the operator."""


class ObjectMissingError(StorageError):
    """The bucket answers and has no object under this key."""

    def __init__(self, object_key: str) -> None:
        super().__init__(f"there is no object {object_key}")
        self.object_key = object_key


class StoreMisconfiguredError(StorageError):
    """The store cannot work as it is configured; the message tells the operator why."""


class StorageUnavailableError(StorageError, UnavailableError):
    """S3 cannot serve just now: `message` is for clients, `hint` (and str()) for the operator.

    `transient` marks what a second try may mend at once, `timed_out` what was silent for too long.
    """

    def __init__(self, hint: str, *, retry_after_s: int = 5, transient: bool = False, timed_out: bool = False) -> None:
        super().__init__("The media storage cannot be reached just now", retry_after_s=retry_after_s)
        self.hint = hint
        self.transient = transient
        self.timed_out = timed_out

    def __str__(self) -> str:
        return self.hint
