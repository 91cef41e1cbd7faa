"""Why an image has no thumbnail."""

from enum import StrEnum

from mediarepo.errors import CannotThumbnailError, LimitExceededError

_RETRY_AFTER_S = 5


class Reason(StrEnum):
    """Why a picture failed; nearly all reasons are properties of the file."""

    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_SCANS = "too_many_scans"
    CORRUPT = "corrupt"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_TOO_LARGE = "output_too_large"
    TOO_MUCH_WORK = "too_much_work"
    TIMED_OUT = "timed_out"
    WORKER_DIED = "worker_died"

    @property
    def may_be_switched_on(self) -> bool:
        """Whether a setting or an extra may change it."""
        return self is Reason.UNSUPPORTED_FORMAT

    @property
    def is_momentary(self) -> bool:
        """Whether the failure may be temporary: an overloaded machine, or a killed worker."""
        return self in {Reason.TIMED_OUT, Reason.WORKER_DIED}


class PictureError(CannotThumbnailError):
    """The file cannot be thumbnailed; `reason` says whether that is temporary."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"cannot be thumbnailed: {reason}")
        self.reason = reason


def too_busy() -> LimitExceededError:
    """Return the error for too many waiting jobs, or one that waited too long."""
    return LimitExceededError("too many thumbnails are being made; try again later", retry_after_s=_RETRY_AFTER_S)
