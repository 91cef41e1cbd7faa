"""What the error codes of S3 providers mean for the operator.

From what servers answered here, and from the providers' error references: AWS, Backblaze B2, Ceph, Cloudflare R2,
Garage, Google Cloud Storage, MinIO, SeaweedFS, s3proxy, versitygw, Wasabi.
"""

import re
from dataclasses import dataclass

_QUOTA = r"quota|cap exceeded|storage (is )?full"


@dataclass(frozen=True, slots=True)
class Hint:
    """Words for a refusal with one of these codes, whose message matches."""

    codes: frozenset[str]
    words: str
    message: re.Pattern[str] = re.compile("")


def _hint(codes: str, words: str, message: str = "") -> Hint:
    return Hint(frozenset(codes.split()), words, re.compile(message, re.IGNORECASE))


_BAD_SIGNATURE = (
    "the signature is wrong: secret_access_key does not belong to access_key_id, "
    "or a proxy in between changes the Host header or the path"
)
_CLOCKS = "the clocks of this machine and of {endpoint_url} differ too much: set the time (NTP) on both"
HINTS = (
    _hint("NoSuchBucket", "there is no bucket {bucket} at {endpoint_url}: create it, or correct its name"),
    _hint("InvalidBucketName", "{endpoint_url} does not take {bucket} as a bucket's name"),
    _hint(
        "AccessDenied Forbidden QuotaExceeded XMinioAdminBucketQuotaExceeded",
        "the bucket {bucket} at {endpoint_url} has reached its quota: raise it, or remove something ({message})",
        _QUOTA,
    ),
    _hint(
        "QuotaExceeded XMinioAdminBucketQuotaExceeded", "the bucket {bucket} at {endpoint_url} has reached its quota"
    ),
    _hint("AccessDenied Forbidden", "{endpoint_url} does not know access_key_id ({message})", r"no such key"),
    _hint("AccessDenied Forbidden", _BAD_SIGNATURE, r"invalid signature"),
    _hint(
        "AccessDenied AllAccessDisabled Forbidden", "the access key may not do this in the bucket {bucket}: {message}"
    ),
    _hint(
        "InvalidAccessKeyId InvalidAccessKey",
        "{endpoint_url} does not know access_key_id: it was deleted, or belongs to another server",
    ),
    _hint("SignatureDoesNotMatch", _BAD_SIGNATURE),
    _hint("XAmzContentSHA256Mismatch BadDigest InvalidDigest", "the body was damaged on its way: {message}"),
    _hint("InvalidRequest", _CLOCKS, r"date is too old"),
    _hint("RequestTimeTooSkewed RequestExpired", _CLOCKS),
    _hint("ExpiredToken InvalidToken TokenRefreshRequired", "session_token is not valid, or no longer"),
    _hint(
        "PermanentRedirect TemporaryRedirect",
        "the bucket {bucket} is reached at another address: correct endpoint_url and region ({endpoint}{message})",
    ),
    _hint("InvalidRegionName", "{endpoint_url} does not know the region {region}: {message}"),
    _hint("SlowDown TooManyRequests", "{endpoint_url} asks for fewer requests a second"),
    _hint("XMinioStorageFull InsufficientStorage InsufficientCapacity", "{endpoint_url} is full: {message}"),
    _hint("InvalidObjectState", "the object was archived and must be restored first: {message}"),
    _hint("InvalidStorageClass", "{endpoint_url} does not know the storage class: correct storage_class ({message})"),
    _hint("EntityTooLarge", "{endpoint_url} takes no object of this size: {message}"),
    _hint(
        "NotImplemented",
        "{endpoint_url} does not implement what was asked of it: {message}",
    ),
    _hint("Unauthorized", "{endpoint_url} does not accept the access key, or not for the bucket {bucket}"),
    _hint(
        "InvalidRequest MissingContentMD5",
        "{endpoint_url} wants a checksum of every body: set content_md5: true ({message})",
        r"content-md5",
    ),
    _hint(
        "AccountProblem UserProjectAccountProblem NotSignedUp InvalidPayer",
        "{endpoint_url} has closed the account, or wants to be paid: {message}",
    ),
    _hint(
        "KMS.DisabledException KMS.NotFoundException KMS.KMSInvalidStateException KMSDisabledException",
        "the key that the bucket is encrypted with cannot be used: {message}",
    ),
    _hint(
        "SlowDownRead SlowDownWrite XMinioReadQuorum XMinioWriteQuorum InsufficientReadQuorum InsufficientWriteQuorum",
        "{endpoint_url} has too few of its drives or servers: look at its own status ({message})",
    ),
    _hint(
        "XMinioServerNotInitialized XMinioBackendDown",
        "{endpoint_url} is starting, or its own storage is down: {message}",
    ),
    _hint("EntityTooSmall", "{endpoint_url} wants larger parts: raise uploads.part_bytes ({message})"),
    _hint("InvalidPart", "{endpoint_url} wants parts of equal size, or has lost one: {message}"),
    _hint("KeyTooLongError KeyTooLong XMinioInvalidObjectName", "the key is not taken: shorten `prefix` ({message})"),
    _hint("MetadataTooLarge", "{endpoint_url} takes less metadata than S3, which takes 2 KB: {message}"),
    _hint("IncompleteBody", "the body was cut off on its way: a proxy in between limits or times out uploads"),
    _hint("MalformedXML", "the request was changed on its way, or is not understood: {message}"),
    _hint(
        "MethodNotAllowed",
        "{endpoint_url} does not allow this: correct endpoint_url and path_style, or the object lock ({message})",
    ),
    _hint("InvalidBucketState ObjectLockConfigurationNotFoundError", "the bucket's settings do not fit: {message}"),
    _hint("NoSuchTenant NoSuchUser InvalidTenant", "{endpoint_url} has no such tenant or user: {message}"),
    _hint("OperationAborted", "{endpoint_url} is changing the bucket {bucket} just now: {message}"),
    _hint("RequestTimeout", "the connection to {endpoint_url} was too slow: {message}"),
)
"""The first that fits is said."""
