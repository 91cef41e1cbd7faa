import pytest

from mediarepo.errors import UnavailableError
from mediarepo.storage.errors import (
    ObjectMissingError,
    Place,
    Refusal,
    StorageError,
    StorageUnavailableError,
    UploadGoneError,
    error_of_failure,
    error_of_refusal,
    outcome_of,
)

PLACE = Place(endpoint_url="https://s3.example.org", region="garage", bucket="media")


def test_only_no_such_key_about_an_object_means_missing() -> None:
    refusal = Refusal(status=404, code="NoSuchKey")
    assert isinstance(error_of_refusal(refusal, PLACE, object_key="mediarepo/a"), ObjectMissingError)
    assert not isinstance(error_of_refusal(refusal, PLACE), ObjectMissingError)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(status=404, code="NoSuchBucket"),
        Refusal(status=404),
        Refusal(status=404, message="<html>"),
        Refusal(status=403, code="InvalidAccessKeyId"),
        Refusal(status=401, code="Unauthorized"),
        Refusal(status=301, code="PermanentRedirect"),
        Refusal(status=400, code="AuthorizationHeaderMalformed"),
        Refusal(status=500, code="InternalError"),
        Refusal(status=503, code="SlowDown"),
        Refusal(status=502),
        Refusal(status=507),
        Refusal(status=507, code="InsufficientStorage"),
    ],
)
def test_an_outage_never_looks_like_missing(refusal: Refusal) -> None:
    error = error_of_refusal(refusal, PLACE, object_key="mediarepo/a")
    assert isinstance(error, StorageUnavailableError)
    assert outcome_of(error) == "unavailable"


@pytest.mark.parametrize(
    ("refusal", "transient"),
    [
        (Refusal(status=503, code="SlowDown"), True),
        (Refusal(status=500, code="InternalError"), True),
        (Refusal(status=400, code="RequestTimeout"), True),
        (Refusal(status=502), True),
        (Refusal(status=429, code="TooManyRequests"), True),
        (Refusal(status=403, code="AccessDenied"), False),
        (Refusal(status=404, code="NoSuchBucket"), False),
    ],
)
def test_what_passes_by_itself_is_transient(refusal: Refusal, transient: bool) -> None:
    error = error_of_refusal(refusal, PLACE)
    assert isinstance(error, StorageUnavailableError)
    assert error.transient is transient


def test_a_refusal_that_no_retry_mends_is_a_storage_error() -> None:
    error = error_of_refusal(Refusal(status=400, code="EntityTooSmall", message="too small"), PLACE)
    assert type(error) is StorageError
    assert outcome_of(error) == "refused"


def test_an_upload_that_is_gone_is_told_from_other_refusals() -> None:
    assert isinstance(error_of_refusal(Refusal(status=404, code="NoSuchUpload"), PLACE), UploadGoneError)
    assert not isinstance(error_of_refusal(Refusal(status=400, code="InvalidPart"), PLACE), UploadGoneError)


def test_silence_is_told_from_a_closed_connection() -> None:
    silent, closed = error_of_failure(TimeoutError(), PLACE), error_of_failure(ConnectionResetError(), PLACE)
    assert (silent.timed_out, silent.transient) == (True, False)
    assert (closed.timed_out, closed.transient) == (False, True)


@pytest.mark.parametrize(
    "error",
    [
        error_of_failure(ConnectionRefusedError(), PLACE),
        error_of_refusal(Refusal(status=400, code="EntityTooLarge", message="at s3.example.org"), PLACE),
    ],
)
def test_clients_are_told_nothing_of_the_store(error: StorageError) -> None:
    assert isinstance(error, UnavailableError)
    assert "example.org" not in error.message
    assert "example.org" in str(error)
    assert error.retry_after_s is not None
