"""From what S3 and the network say to our own errors."""

from collections.abc import Callable

from mediarepo.storage.errors import ObjectMissingError, StorageError, StorageUnavailableError
from mediarepo.storage.explain import Place, explain_failure, explain_refusal
from mediarepo.storage.refusals import Refusal

OnRequest = Callable[[str, str], None]
"""Hears of every request to S3: its name, and its outcome as `outcome_of` says it, or "ok"."""

_MISSING_CODES = frozenset({"NoSuchKey", "NoSuchVersion"})


def error_of_refusal(refusal: Refusal, place: Place, *, object_key: str | None = None) -> StorageError:
    """Choose the error for an answer; only NoSuchKey about an object that was asked for means missing."""
    if object_key is not None and refusal.code in _MISSING_CODES:
        return ObjectMissingError(object_key)
    words = explain_refusal(refusal, place)
    if refusal.is_outage:
        return StorageUnavailableError(words, transient=refusal.is_transient)
    return StorageError(words)


def error_of_failure(exc: BaseException, place: Place) -> StorageUnavailableError:
    """Choose the error for an answer that never came; silence is not asked again, everything else is."""
    timed_out = isinstance(exc, TimeoutError)
    return StorageUnavailableError(explain_failure(exc, place), transient=not timed_out, timed_out=timed_out)


def outcome_of(error: StorageError) -> str:
    """Sum an error up in one word, for counting."""
    if isinstance(error, ObjectMissingError):
        return "missing"
    return "unavailable" if isinstance(error, StorageUnavailableError) else "refused"
