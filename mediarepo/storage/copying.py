"""Objects of which others are made, by the S3 server itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CopySource:
    """An object that another is made of; `etag` without quotes, or None when it does not matter."""

    bucket: str
    object_key: str
    size_bytes: int
    etag: str | None = None

    def parameters(self) -> dict[str, object]:
        """Name it in botocore's words."""
        named: dict[str, object] = {"CopySource": {"Bucket": self.bucket, "Key": self.object_key}}
        return named if self.etag is None else {**named, "CopySourceIfMatch": self.etag}
