"""S3 operations other than reading and writing bytes, through aioboto3."""

import asyncio
import base64
import functools
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Self

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from mediarepo.config.storage import StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.storage.errors import (
    OnRequest,
    S3ErrorResponse,
    S3Location,
    StorageError,
    StoreMisconfiguredError,
    UnsupportedRequestError,
    error_from_exception,
    error_from_response,
    explain_error_response,
    outcome_of,
    parse_retry_after,
)
from mediarepo.storage.signing import CredentialSource


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


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the server knows of an object; `etag` without quotes, `metadata` as it was given when it was made."""

    size_bytes: int
    etag: str
    metadata: Mapping[str, str]


_NOT_FOUND = 404
_MISSING_CODES = frozenset({"NoSuchKey", "NoSuchVersion"})
_WRITES = frozenset({"begin_multipart", "complete_multipart", "copy", "copy_part"})
_UNSUPPORTED = {"delete": frozenset({400, 405, 501}), "list_multiparts": frozenset({405, 501})}
"""How servers refuse what they do not have at all."""
Answer = dict[str, Any]  # what botocore makes of an answer's XML


@functools.cache
def _session() -> aioboto3.Session:
    """Read the description of S3's API once a process: it takes 15 MB."""
    return aioboto3.Session()


class ObjectControl:
    """Makes single attempts with one client; retrying is the caller's. Open it before use, with `async with`."""

    def __init__(
        self, config: StoreConfig, place: S3Location, credentials: CredentialSource, on_request: OnRequest
    ) -> None:
        self._config = config
        self._place = place
        self._credentials = credentials
        self._on_request = on_request
        self._stack, self._retired = AsyncExitStack(), AsyncExitStack()
        self.under_way = 0

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def renew(self) -> None:
        """Use the credentials of this moment; what is under way ends with the old ones, until the next renewal."""
        await self._retired.aclose()
        self._stack, self._retired = AsyncExitStack(), self._stack
        await self._open()

    async def _open(self) -> None:
        try:
            self._client = await self._stack.enter_async_context(await self._make_client())
        except BotoCoreError as exc:
            raise StoreMisconfiguredError(f"the S3 client cannot be made: {exc}") from exc
        self._client.meta.events.register("before-call.s3", _never_redirect)
        self._client.meta.events.register("before-call.s3.DeleteObjects", _send_content_md5)

    async def _make_client(self) -> AbstractAsyncContextManager[Any]:  # botocore makes the client's class at runtime
        config = self._config
        credentials = await self._credentials.current() if config.access_key_id is not None else None
        return _session().client(  # type: ignore[no-any-return]
            "s3",
            endpoint_url=config.endpoint_url,
            region_name=config.region,
            aws_access_key_id=credentials and credentials.access_key_id,
            aws_secret_access_key=credentials and credentials.secret_access_key,
            aws_session_token=credentials and credentials.session_token,
            verify=config.ca_file,
            config=_client_config(config),
        )

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await self._retired.aclose()

    async def list(self, operation: str, **parameters: str | int) -> Answer:
        """Get one page of ListObjectsV2."""
        return await self._call(operation, self._client.list_objects_v2, **parameters)

    async def list_multiparts(self, **parameters: str) -> Answer:
        """Get one page of ListMultipartUploads; UnsupportedRequestError where the server has none."""
        return await self._call("list_multiparts", self._client.list_multipart_uploads, **parameters)

    @staticmethod
    def lists_whole_keys_only(page: Answer) -> bool:
        """Say whether a page is a server's that finds multipart uploads by their whole key only, never by a prefix."""
        server = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("server", "")
        return str(server).startswith("MinIO")

    async def begin(self, object_key: str, metadata: Mapping[str, str], storage_class: str | None) -> str:
        """Create a multipart upload; gives its id."""
        answer = await self._call(
            "begin_multipart",
            self._client.create_multipart_upload,
            Key=object_key,
            Metadata=dict(metadata),
            **_of_class(storage_class),
        )
        return str(answer["UploadId"])

    async def complete(self, object_key: str, upload_id: str, etags: Sequence[str]) -> bool:
        """Complete a multipart upload; False when there is no such upload (any more)."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        return await self._of_upload(
            "complete_multipart",
            self._client.complete_multipart_upload,
            Key=object_key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
        )

    async def abort(self, object_key: str, upload_id: str) -> bool:
        """Abort a multipart upload; False when there is no such upload (any more)."""
        return await self._of_upload(
            "abort_multipart", self._client.abort_multipart_upload, Key=object_key, UploadId=upload_id
        )

    async def copy(
        self,
        source: CopySource,
        object_key: str,
        metadata: Mapping[str, str],
        *,
        algorithm: str | None,
        storage_class: str | None,
    ) -> str | None:
        """Make an object of another one, without its bytes passing through here; gives its SHA-256 if asked for.

        The source must still be what it was (`etag`); else the server refuses with 412.
        """
        extra = {} if algorithm is None else {"ChecksumAlgorithm": algorithm}
        answer = await self._call(
            "copy",
            self._client.copy_object,
            Key=object_key,
            Metadata=dict(metadata),
            MetadataDirective="REPLACE",
            **source.parameters(),
            **_of_class(storage_class),
            **extra,
        )
        checksum = answer.get("CopyObjectResult", {}).get("ChecksumSHA256")
        return None if checksum is None else str(checksum)

    async def copy_part(
        self, source: CopySource, object_key: str, upload_id: str, number: int, byte_range: ByteRange
    ) -> str:
        """Make a part of a stretch of another object; gives its ETag."""
        answer = await self._call(
            "copy_part",
            self._client.upload_part_copy,
            Key=object_key,
            UploadId=upload_id,
            PartNumber=number,
            CopySourceRange=f"bytes={byte_range.offset}-{byte_range.last}",
            **source.parameters(),
        )
        return str(answer["CopyPartResult"]["ETag"])

    async def checksum_of(self, object_key: str) -> str | None:
        """Ask for the SHA-256 that the server keeps of a whole object, in base64; None when it keeps none."""
        answer = await self._call("head", self._client.head_object, Key=object_key, ChecksumMode="ENABLED")
        checksum = answer.get("ChecksumSHA256")
        whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" and "-" not in str(checksum)
        return str(checksum) if checksum is not None and whole else None

    async def size_of(self, object_key: str) -> int | None:
        """Ask for an object's size; None when the answer is 404, be it for the object or for the bucket."""
        try:
            answer = await self._call("head", self._client.head_object, Key=object_key)
        except _NotThereError:
            return None
        return int(answer["ContentLength"])

    async def facts_of(self, object_key: str) -> ObjectFacts | None:
        """Ask for what the server knows of an object; None when there is none."""
        try:
            answer = await self._call("head", self._client.head_object, Key=object_key)
        except _NotThereError:
            return None
        metadata = {str(name).lower(): str(value) for name, value in answer.get("Metadata", {}).items()}
        return ObjectFacts(int(answer["ContentLength"]), str(answer.get("ETag", "")).strip('"'), metadata)

    async def delete(self, object_keys: Sequence[str]) -> dict[str, str]:
        """Delete at most 1000 objects; gives the reasons of those that remain.

        UnsupportedRequestError where the server has no DeleteObjects, as Google Cloud Storage.
        """
        objects = {"Objects": [{"Key": key} for key in object_keys], "Quiet": True}
        answer = await self._call("delete", self._client.delete_objects, Delete=objects)
        return {
            error["Key"]: f"{error.get('Code', '')}: {error.get('Message', '')}"
            for error in answer.get("Errors", [])
            if error.get("Code") != "NoSuchKey"
        }

    async def delete_one(self, object_key: str) -> None:
        """Delete an object; one that is missing is fine."""
        try:
            await self._call("delete_one", self._client.delete_object, Key=object_key)
        except _NotThereError:
            return

    async def _of_upload(self, operation: str, method: Callable[..., Awaitable[Answer]], **parameters: object) -> bool:
        try:
            await self._call(operation, method, **parameters)
        except _NotThereError:
            return False
        return True

    async def _call(self, operation: str, method: Callable[..., Awaitable[Answer]], **parameters: object) -> Answer:
        self.under_way += 1
        began, key = perf_counter(), parameters.get("Key")
        told = functools.partial(self._tell, operation, began, key if isinstance(key, str) else None)
        try:
            async with asyncio.timeout(self._config.request_timeout_ms / 1000):
                answer = await method(Bucket=self._config.bucket, **parameters)
        except ClientError as exc:
            error = self._translate(operation, exc)
            told("missing" if isinstance(error, _NotThereError) else outcome_of(error))
            raise error from exc
        except (BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError) as exc:
            told("unavailable")
            raise error_from_exception(_inner(exc), self._place) from exc
        finally:
            self.under_way -= 1
        told("ok")
        return answer

    def _tell(self, operation: str, began: float, object_key: str | None, outcome: str) -> None:
        self._on_request(operation, outcome, perf_counter() - began, object_key)

    def _translate(self, operation: str, exc: ClientError) -> StorageError:
        refusal = error_response_of(exc)
        if refusal.code == "NoSuchUpload" or (operation, refusal.status) == ("head", _NOT_FOUND):
            return _NotThereError(refusal.code)
        if operation == "delete_one" and refusal.code in _MISSING_CODES:
            return _NotThereError(refusal.code)
        if refusal.status in _UNSUPPORTED.get(operation, ()):
            return UnsupportedRequestError(explain_error_response(refusal, self._place))
        return error_from_response(refusal, self._place, writing=operation in _WRITES)


def _of_class(storage_class: str | None) -> dict[str, object]:
    return {} if storage_class is None else {"StorageClass": storage_class}


class _NotThereError(StorageError):
    """There is no such upload or object."""


def error_response_of(exc: ClientError) -> S3ErrorResponse:
    """Read botocore's account of an error; its numeric codes stand for an empty body."""
    error = exc.response.get("Error", {})
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.get("Code", ""))
    return S3ErrorResponse(
        status=status,
        code="" if code.isdecimal() else code,
        message=str(error.get("Message", "")),
        region=str(error.get("Region", "")),
        endpoint=str(error.get("Endpoint", "")),
        retry_after_s=parse_retry_after(
            exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after")
        ),
    )


def _client_config(config: StoreConfig) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path" if config.path_style else "virtual"},
        connect_timeout=config.connect_timeout_ms / 1000,
        read_timeout=config.read_timeout_ms / 1000,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={},
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
    )


def _never_redirect(params: Answer, **_: object) -> None:
    """Keep botocore from trying another region: ours would still be wrong for the bytes."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _send_content_md5(params: Answer, **_: object) -> None:
    """Send what every server checks (MinIO and Garage ask for it) instead of botocore's newer checksum headers."""
    params["context"].pop("checksum", None)
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode("ascii")
    params["headers"].pop("x-amz-sdk-checksum-algorithm", None)


def _inner(exc: BaseException) -> BaseException:
    inner = getattr(exc, "kwargs", {}).get("error")
    return inner if isinstance(inner, BaseException) else exc
