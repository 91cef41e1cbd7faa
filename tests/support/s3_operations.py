"""A request to S3, and what S3 calls it, told from its method, its place and its query."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from multidict import CIMultiDictProxy

# (method, what the path names, a parameter it must have, the operation); the first row that fits counts
_TABLE = (
    ("GET", "server", "", "ListBuckets"),
    ("GET", "bucket", "uploads", "ListMultipartUploads"),
    ("GET", "bucket", "list-type", "ListObjectsV2"),
    ("GET", "bucket", "location", "GetBucketLocation"),
    ("GET", "bucket", "versioning", "GetBucketVersioning"),
    ("GET", "bucket", "lifecycle", "GetBucketLifecycleConfiguration"),
    ("GET", "bucket", "object-lock", "GetObjectLockConfiguration"),
    ("GET", "bucket", "cors", "GetBucketCors"),
    ("GET", "bucket", "", "ListObjects"),
    ("GET", "key", "uploadId", "ListParts"),
    ("GET", "key", "", "GetObject"),
    ("HEAD", "bucket", "", "HeadBucket"),
    ("HEAD", "key", "", "HeadObject"),
    ("PUT", "bucket", "lifecycle", "PutBucketLifecycleConfiguration"),
    ("PUT", "bucket", "cors", "PutBucketCors"),
    ("PUT", "bucket", "", "CreateBucket"),
    ("PUT", "key", "uploadId", "UploadPart"),
    ("PUT", "key", "", "PutObject"),
    ("POST", "bucket", "delete", "DeleteObjects"),
    ("POST", "key", "uploads", "CreateMultipartUpload"),
    ("POST", "key", "uploadId", "CompleteMultipartUpload"),
    ("DELETE", "bucket", "", "DeleteBucket"),
    ("DELETE", "key", "uploadId", "AbortMultipartUpload"),
    ("DELETE", "key", "", "DeleteObject"),
)
_COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}


@dataclass(slots=True)
class Seen:
    """One request; `body` is its beginning, `received_bytes` and `sent_bytes` count on while it lasts."""

    op: str
    method: str
    path: str
    query: dict[str, str]
    headers: CIMultiDictProxy[str]
    body: bytes = field(default=b"", repr=False)
    received_bytes: int = 0
    sent_bytes: int = 0
    status: int | None = None

    @property
    def key(self) -> str:
        return self.path.lstrip("/").partition("/")[2]


def operation_of(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """Name the operation of a path-style request; "Unknown" when S3 has no such thing."""
    bucket, _, key = path.lstrip("/").partition("/")
    place = "key" if key else "bucket" if bucket else "server"
    for row_method, row_place, parameter, operation in _TABLE:
        if (row_method, row_place) == (method, place) and (not parameter or parameter in query):
            return _COPIES.get(operation, operation) if "x-amz-copy-source" in headers else operation
    return "Unknown"
