import pytest

from mediarepo.errors import UnavailableError
from mediarepo.storage.errors import (
    ObjectMissingError,
    S3ErrorResponse,
    S3Location,
    StorageError,
    StorageRefusesWritesError,
    StorageUnavailableError,
    UploadGoneError,
    error_from_exception,
    error_from_response,
    outcome_of,
)

PLACE = S3Location(endpoint_url="https://s3.example.org", region="garage", bucket="media")


def test_only_no_such_key_about_an_object_means_missing() -> None:
    refusal = S3ErrorResponse(status=404, code="NoSuchKey")
    assert isinstance(error_from_response(refusal, PLACE, object_key="mediarepo/a"), ObjectMissingError)
    assert not isinstance(error_from_response(refusal, PLACE), ObjectMissingError)


@pytest.mark.parametrize(
    "refusal",
    [
        S3ErrorResponse(status=404, code="NoSuchBucket"),
        S3ErrorResponse(status=404),
        S3ErrorResponse(status=404, message="<html>"),
        S3ErrorResponse(status=403, code="InvalidAccessKeyId"),
        S3ErrorResponse(status=401, code="Unauthorized"),
        S3ErrorResponse(status=301, code="PermanentRedirect"),
        S3ErrorResponse(status=400, code="AuthorizationHeaderMalformed"),
        S3ErrorResponse(status=500, code="InternalError"),
        S3ErrorResponse(status=503, code="SlowDown"),
        S3ErrorResponse(status=502),
        S3ErrorResponse(status=507),
        S3ErrorResponse(status=507, code="InsufficientStorage"),
    ],
)
def test_an_outage_never_looks_like_missing(refusal: S3ErrorResponse) -> None:
    error = error_from_response(refusal, PLACE, object_key="mediarepo/a")
    assert isinstance(error, StorageUnavailableError)
    assert outcome_of(error) == "unavailable"


@pytest.mark.parametrize(
    ("refusal", "transient"),
    [
        (S3ErrorResponse(status=503, code="SlowDown"), True),
        (S3ErrorResponse(status=500, code="InternalError"), True),
        (S3ErrorResponse(status=400, code="RequestTimeout"), True),
        (S3ErrorResponse(status=502), True),
        (S3ErrorResponse(status=429, code="TooManyRequests"), True),
        (S3ErrorResponse(status=403, code="AccessDenied"), False),
        (S3ErrorResponse(status=404, code="NoSuchBucket"), False),
    ],
)
def test_what_passes_by_itself_is_transient(refusal: S3ErrorResponse, transient: bool) -> None:
    error = error_from_response(refusal, PLACE)
    assert isinstance(error, StorageUnavailableError)
    assert error.transient is transient


def test_a_refusal_that_no_retry_mends_is_a_storage_error() -> None:
    error = error_from_response(S3ErrorResponse(status=400, code="EntityTooSmall", message="too small"), PLACE)
    assert type(error) is StorageError
    assert outcome_of(error) == "refused"


def test_an_upload_that_is_gone_is_told_from_other_refusals() -> None:
    assert isinstance(error_from_response(S3ErrorResponse(status=404, code="NoSuchUpload"), PLACE), UploadGoneError)
    assert not isinstance(error_from_response(S3ErrorResponse(status=400, code="InvalidPart"), PLACE), UploadGoneError)


def test_silence_is_told_from_a_closed_connection() -> None:
    silent, closed = error_from_exception(TimeoutError(), PLACE), error_from_exception(ConnectionResetError(), PLACE)
    assert (silent.timed_out, silent.transient) == (True, False)
    assert (closed.timed_out, closed.transient) == (False, True)


@pytest.mark.parametrize(
    "error",
    [
        error_from_exception(ConnectionRefusedError(), PLACE),
        error_from_response(S3ErrorResponse(status=400, code="EntityTooLarge", message="at s3.example.org"), PLACE),
    ],
)
def test_clients_are_told_nothing_of_the_store(error: StorageError) -> None:
    assert isinstance(error, UnavailableError)
    assert "example.org" not in error.message
    assert "example.org" in str(error)
    assert error.retry_after_s is not None


@pytest.mark.parametrize(
    ("status", "code", "message", "words"),
    [
        (403, "AccessDenied", "Forbidden: Object quota is reached, maximum objects for this bucket: 3", "quota"),
        (403, "AccessDenied", "Forbidden: Bucket size quota is reached, maximum total size: 1000", "quota"),
        (400, "XMinioAdminBucketQuotaExceeded", "Bucket quota exceeded", "quota"),
        (403, "QuotaExceeded", "", "quota"),
        (403, "AccessDenied", "Cannot upload files, storage cap exceeded.", "quota"),
        (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold.", "is full"),
        (403, "AccessDenied", "Access Denied.", "may not do this"),
    ],
)
def test_what_refuses_writes_only_is_told_by_its_reason(status: int, code: str, message: str, words: str) -> None:
    place = S3Location(endpoint_url="http://s3.example", region="r", bucket="b")
    refusal = S3ErrorResponse(status=status, code=code, message=message)

    error = error_from_response(refusal, place, writing=True)

    assert isinstance(error, StorageRefusesWritesError)
    assert words in error.hint
    assert not isinstance(error_from_response(refusal, place), StorageRefusesWritesError)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "AccessDenied", "Forbidden: No such key: GK123"),
        (403, "AccessDenied", "Forbidden: Invalid signature"),
        (403, "SignatureDoesNotMatch", ""),
        (403, "RequestTimeTooSkewed", ""),
        (503, "SlowDown", ""),
        (403, "", "<html>"),
    ],
)
def test_what_concerns_reading_too_is_an_outage(status: int, code: str, message: str) -> None:
    place = S3Location(endpoint_url="http://s3.example", region="r", bucket="b")
    refusal = S3ErrorResponse(status=status, code=code, message=message)

    assert isinstance(error_from_response(refusal, place, writing=True), StorageUnavailableError)
