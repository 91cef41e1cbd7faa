"""Reads and writes bytes in S3 over one connection pool; requests are signed here."""

import asyncio
import base64
import hashlib
import re
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from yarl import URL

from mediarepo.config.storage import Checksum, HttpClient, StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.requester import current_client
from mediarepo.outbound.client import tls_context
from mediarepo.storage.aiohttp_transport import AiohttpTransport
from mediarepo.storage.errors import (
    OnRequest,
    S3Location,
    StorageError,
    StoreMisconfiguredError,
    UnknownLengthError,
    WrongLengthError,
    error_from_exception,
    error_from_response,
    outcome_of,
    parse_error_response,
)
from mediarepo.storage.read_connections import ReadConnections
from mediarepo.storage.retry import RetryPolicy
from mediarepo.storage.signing import (
    UNSIGNED_PAYLOAD,
    CredentialSource,
    Signer,
    amz_date,
    canonical_query,
    presigned_query,
    quote_key,
)
from mediarepo.storage.stored_object import StoredObject
from mediarepo.storage.transport import TRANSPORT_ERRORS, Body, Response, Transport

if TYPE_CHECKING:
    from mediarepo.storage.http_transport import HttpTransport

_SLICE_BYTES = 256 * 1024
_PLAIN = "/:@!$'()*+,;=-_.~"


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Name and encode metadata as headers; what is not plain ASCII becomes percent-encoded UTF-8."""
    return {f"x-amz-meta-{name.lower()}": encode_metadata(value) for name, value in metadata.items()}


def encode_metadata(value: str) -> str:
    """Percent-encode what a header or a signature could change on the way."""
    return quote(value, safe=_PLAIN)


def md5_header(chunks: Sequence[bytes | memoryview]) -> dict[str, str]:
    """Make Content-MD5 (RFC 1864)."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return {"content-md5": _base64(digest.digest())}


def checksum_header(checksum: Checksum, chunks: Sequence[bytes | memoryview]) -> dict[str, str]:
    """Make the x-amz-checksum header, if any (S3 user guide: Checking object integrity)."""
    if checksum is Checksum.CRC32:
        crc = 0
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
        return {"x-amz-checksum-crc32": _base64(crc.to_bytes(4, "big"))}
    if checksum is Checksum.SHA256:
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        return {"x-amz-checksum-sha256": _base64(digest.digest())}
    return {}


_ChunksToHeader = Callable[[Sequence[bytes | memoryview]], dict[str, str]]


async def _off_loop(make: _ChunksToHeader, chunks: Sequence[bytes | memoryview], size_bytes: int) -> dict[str, str]:
    """Make a header of a large body in a thread: 8 MiB take 10 ms of MD5."""
    return await asyncio.to_thread(make, chunks) if size_bytes > _SLICE_BYTES else make(chunks)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


_OK = 200
_PARTIAL_CONTENT = 206
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+-[0-9]+)(?:/(?:[0-9]+|\*))?", re.IGNORECASE)
_ERROR_BODY_BYTES = 64 * 1024


class S3Client:
    """Makes single attempts; retrying is the caller's, but bodies that break off go on as `retrying` says.

    Open it before use, with `async with`.
    """

    def __init__(
        self,
        config: StoreConfig,
        place: S3Location,
        credentials: CredentialSource,
        on_request: OnRequest,
        retrying: RetryPolicy | None = None,
    ) -> None:
        self._config = config
        self._place = place
        self._credentials = credentials
        self._on_request = on_request
        self._retrying = RetryPolicy() if retrying is None else retrying
        self._stack = AsyncExitStack()
        self._base, self._base_path, self._host = _address(config)
        self._signer: Signer | None = None
        self.under_way = 0
        self.connections = ReadConnections(config.max_connections, config.pool_timeout_ms / 1000)

    async def __aenter__(self) -> Self:
        # clients who take their time with downloads must not hold up uploads: each has connections of its own
        total_s = self._config.request_timeout_ms / 1000
        limit = self._config.max_connections
        self.reading = await self._stack.enter_async_context(self._transport())  # `connections` bounds them
        self.writing = await self._stack.enter_async_context(self._transport(total_s=total_s, limit=limit))
        return self

    def _transport(self, *, total_s: float | None = None, limit: int | None = None) -> Transport:
        config = self._config
        return _transport_class(config.http_client)(
            URL(self._base),
            tls=_trust(config) if config.endpoint_url.startswith("https:") else None,
            connect_s=config.connect_timeout_ms / 1000,
            read_s=config.read_timeout_ms / 1000,
            total_s=total_s,
            limit=limit,
        )

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def get(self, object_key: str, byte_range: ByteRange | None, known_bytes: int | None = None) -> StoredObject:
        """Ask for an object or a span of it; it is the caller's to close.

        `known_bytes` is what the object is known to have, for servers that answer without a length. Raises
        ObjectMissingError, StorageUnavailableError, or StorageError when the object is shorter than the span.
        """
        client = current_client().name
        response, size_bytes = await self._opened(client, object_key, byte_range, known_bytes)
        etag = response.header("etag")
        begin = 0 if byte_range is None else byte_range.offset
        total = str(size_bytes) if byte_range is None else _total(response)

        async def reopen(offset: int, max_bytes: int | None) -> Response:
            rest_bytes = size_bytes - offset
            rest = ByteRange(begin + offset, rest_bytes if max_bytes is None else min(rest_bytes, max_bytes))
            again, _ = await self._opened(client, object_key, rest, None, wait_s=self._config.read_timeout_ms / 1000)
            if again.header("etag") != etag or _total(again) not in {total, None}:
                again.close()
                self.connections.release(client)
                raise StorageError(f"{object_key} is another object than a moment ago")
            return again

        return StoredObject(
            response,
            self._place,
            size_bytes=size_bytes,
            connections=self.connections,
            reopen=reopen,
            retries=self._retrying.begin(),
            client=client,
        )

    async def _opened(
        self,
        client: str,
        object_key: str,
        byte_range: ByteRange | None,
        known_bytes: int | None,
        *,
        wait_s: float | None = None,
    ) -> tuple[Response, int]:
        """Ask for bytes over one of the connections, which whoever closes the response must release."""
        extra = {} if byte_range is None else {"Range": f"bytes={byte_range.offset}-{byte_range.last}"}
        with self._counted("get", object_key):
            await self.connections.acquire(client, wait_s=wait_s)
            try:
                response = await self._send("GET", object_key, unsigned=extra)
                try:
                    return response, await self._promised_size(response, object_key, byte_range, known_bytes)
                except BaseException:
                    response.close()
                    raise
            except BaseException:
                self.connections.release(client)
                raise

    async def put(
        self, object_key: str, chunks: Sequence[bytes | memoryview], *, size_bytes: int, headers: Mapping[str, str]
    ) -> None:
        """Put a whole object; `headers` are lower-case."""
        signed = dict(headers)
        if self._config.content_md5:
            signed |= await _off_loop(md5_header, chunks, size_bytes)
        if self._config.checksum is not Checksum.NONE:
            signed |= await _off_loop(partial(checksum_header, self._config.checksum), chunks, size_bytes)
        await self._put("put", object_key, Body(chunks, size_bytes=size_bytes), signed=signed)

    async def put_part(
        self, object_key: str, upload_id: str, number: int, chunks: Sequence[bytes | memoryview], *, size_bytes: int
    ) -> str:
        """Put one part of a multipart upload; gives its ETag."""
        query = canonical_query([("partNumber", str(number)), ("uploadId", upload_id)])
        checked = self._config.content_md5 or self._config.checksum is not Checksum.NONE
        signed = await _off_loop(md5_header, chunks, size_bytes) if checked else {}
        body = Body(chunks, size_bytes=size_bytes)
        return await self._put("put_part", object_key, body, signed=signed, query=query)

    async def _put(
        self, operation: str, object_key: str, body: Body, *, signed: dict[str, str], query: str = ""
    ) -> str:
        with self._counted(operation, object_key):
            response = await self._send("PUT", object_key, query=query, signed=signed, body=body)
            try:
                if response.status != _OK:
                    await self._refuse(response, writing=True)
                await self._read_little(response)
                etag = response.header("etag")
            finally:
                response.close()
            if etag is None:
                raise StorageError(f"{self._place.endpoint_url} took {object_key} without giving its ETag")
            return etag

    @contextmanager
    def _counted(self, operation: str, object_key: str) -> Iterator[None]:
        self.under_way += 1
        began = time.perf_counter()
        try:
            yield
        except StorageError as exc:
            self._on_request(operation, outcome_of(exc), time.perf_counter() - began, object_key)
            raise
        finally:
            self.under_way -= 1
        self._on_request(operation, "ok", time.perf_counter() - began, object_key)

    async def _send(
        self,
        method: str,
        object_key: str,
        *,
        query: str = "",
        signed: Mapping[str, str] | None = None,
        unsigned: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Response:
        path = self._base_path + quote_key(object_key)
        headers = await self._headers(method, path, query, signed or {})
        headers.update(unsigned or {})
        transport = self.reading if method == "GET" else self.writing
        try:
            return await transport.send(method, f"{path}?{query}" if query else path, headers, body)
        except TRANSPORT_ERRORS as exc:
            raise error_from_exception(exc, self._place) from exc

    async def presign(
        self, object_key: str, *, lifetime_s: int, overrides: Mapping[str, str], window_s: int = 1
    ) -> str:
        """Make a URL at which S3 gives an object to whoever has it, with other response headers than the object's.

        It is the same for `window_s` seconds, at the end of which it is good for that much less than `lifetime_s`.
        """
        path = self._base_path + quote_key(object_key)
        query = presigned_query(
            await self._current_signer(),
            path=path,
            host=self._host,
            lifetime_s=lifetime_s,
            date=amz_date(int(time.time()) // window_s * window_s),
            overrides=overrides,
        )
        return f"{self._base}{path}?{query}"

    async def _current_signer(self) -> Signer:
        credentials = await self._credentials.current()
        if self._signer is None or self._signer.credentials is not credentials:
            self._signer = Signer(credentials, self._config.region)
        return self._signer

    async def _headers(self, method: str, path: str, query: str, signed: Mapping[str, str]) -> dict[str, str]:
        signer = await self._current_signer()
        credentials = signer.credentials
        date = amz_date(int(time.time()))
        headers = [("host", self._host), ("x-amz-content-sha256", UNSIGNED_PAYLOAD), ("x-amz-date", date)]
        if credentials.session_token is not None:
            headers.append(("x-amz-security-token", credentials.session_token))
        if signed:
            headers = sorted([*headers, *signed.items()])
        authorization = signer.authorization(
            method, path, query, headers=headers, payload_hash=UNSIGNED_PAYLOAD, date=date
        )
        sent = dict(headers)
        sent["authorization"] = authorization
        sent["accept-encoding"] = "identity"
        return sent

    async def _promised_size(
        self, response: Response, object_key: str, byte_range: ByteRange | None, known_bytes: int | None
    ) -> int:
        if response.status != (_OK if byte_range is None else _PARTIAL_CONTENT):
            await self._refuse(response, object_key=object_key)
        size_bytes = response.content_length
        if size_bytes is None:  # a chunked answer, or one that ends with the connection: the bytes are counted
            size_bytes = known_bytes if byte_range is None else byte_range.size_bytes
        if size_bytes is None:
            raise UnknownLengthError(f"{self._place.endpoint_url} does not say how long {object_key} is")
        if byte_range is None:
            if known_bytes not in {None, size_bytes}:
                raise WrongLengthError(f"{object_key} has {size_bytes} bytes, not {known_bytes}")
            return size_bytes
        came = _CONTENT_RANGE.fullmatch(response.header("content-range") or "")
        if size_bytes != byte_range.size_bytes or came is None or came[1] != f"{byte_range.offset}-{byte_range.last}":
            raise StorageError(f"{object_key} does not hold bytes {byte_range.offset} to {byte_range.last}")
        return size_bytes

    async def _refuse(self, response: Response, *, object_key: str | None = None, writing: bool = False) -> None:
        body = await self._read_little(response)
        refusal = parse_error_response(response.status, body, retry_after=response.header("retry-after"))
        raise error_from_response(refusal, self._place, object_key=object_key, writing=writing)

    async def _read_little(self, response: Response) -> bytes:
        body = b""
        try:
            while len(body) < _ERROR_BODY_BYTES and (data := await response.readany()):
                body += data
        except TRANSPORT_ERRORS as exc:
            raise error_from_exception(exc, self._place) from exc
        return body


def _total(response: Response) -> str | None:
    """Read the whole object's size out of Content-Range; None where it does not stand there."""
    total = (response.header("content-range") or "").rpartition("/")[2]
    return total if total.isdecimal() else None


def _address(config: StoreConfig) -> tuple[str, str, str]:
    """Scheme with host, path before every key, and Host header."""
    url = URL(config.endpoint_url)
    if not config.path_style:
        url = url.with_host(f"{config.bucket}.{url.host}")
    base_path = url.raw_path.rstrip("/") + (f"/{config.bucket}/" if config.path_style else "/")
    return str(url.origin()), base_path, url.host_port_subcomponent or ""


def _transport_class(http_client: HttpClient) -> "type[HttpTransport | AiohttpTransport]":
    """Choose the HTTP client: the one that is configured, or aiohttp's where httptools is not installed."""
    if http_client is HttpClient.AIOHTTP or find_spec("httptools") is None:
        return AiohttpTransport
    from mediarepo.storage.http_transport import HttpTransport  # noqa: PLC0415 - needs the optional httptools

    return HttpTransport


def _trust(config: StoreConfig) -> ssl.SSLContext:
    try:
        return tls_context(config.ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise StoreMisconfiguredError(f"ca_file {config.ca_file} cannot be used: {exc.strerror or exc}") from exc
