"""Reads and writes bytes in S3 over one connection pool; requests are signed here."""

import asyncio
import base64
import hashlib
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Self
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from mediarepo.config.storage import Checksum, StoreConfig
from mediarepo.model.byte_stream import ByteRange
from mediarepo.outbound.client import tls_context
from mediarepo.storage.errors import (
    OnRequest,
    S3Location,
    StorageError,
    StoreMisconfiguredError,
    UnknownLengthError,
    error_from_exception,
    error_from_response,
    outcome_of,
    parse_error_response,
)
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
from mediarepo.storage.stored_object import ReadConnections, StoredObject

_SLICE_BYTES = 256 * 1024
_PLAIN = "/:@!$'()*+,;=-_.~"


class Chunks(Payload):
    """A body of known size; raises ValueError when the chunks do not add up to it."""

    _autoclose = True

    def __init__(self, chunks: Sequence[bytes | memoryview], *, size_bytes: int) -> None:
        if sum(map(len, chunks)) != size_bytes:
            raise ValueError("the chunks do not add up to size_bytes")
        super().__init__(chunks)
        self._size = size_bytes
        self._chunks = chunks

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the chunks, large ones in slices so that little is buffered."""
        for chunk in self._chunks:
            if len(chunk) <= _SLICE_BYTES:
                await writer.write(chunk)
                continue
            view = memoryview(chunk)
            for start in range(0, len(chunk), _SLICE_BYTES):
                await writer.write(view[start : start + _SLICE_BYTES])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Show the body as text, as aiohttp asks of every payload."""
        return b"".join(self._chunks).decode(encoding, errors)


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
_ERROR_BODY_BYTES = 64 * 1024
_SKIPPED_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


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
        config = self._config
        self._patient = aiohttp.ClientTimeout(
            total=None,
            connect=config.request_timeout_ms / 1000,
            sock_connect=config.connect_timeout_ms / 1000,
            sock_read=config.read_timeout_ms / 1000,
        )
        self._strict = aiohttp.ClientTimeout(
            total=config.request_timeout_ms / 1000,
            sock_connect=config.connect_timeout_ms / 1000,
            sock_read=config.read_timeout_ms / 1000,
        )
        # clients who take their time with downloads must not hold up uploads: each has connections of its own
        self._reading, self._writing = await self._session(limit=0), await self._session(limit=config.max_connections)
        return self

    async def _session(self, *, limit: int) -> aiohttp.ClientSession:
        """Open a session of so many connections; 0: `connections` bounds them."""
        config = self._config
        connector = aiohttp.TCPConnector(
            limit=limit,
            ssl=_trust(config) if config.endpoint_url.startswith("https:") else False,
        )
        return await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_SKIPPED_HEADERS,
                timeout=self._patient,
                trust_env=False,
            )
        )

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def get(self, object_key: str, byte_range: ByteRange | None, known_bytes: int | None = None) -> StoredObject:
        """Ask for an object or a span of it; it is the caller's to close.

        `known_bytes` is what the object is known to have, for servers that answer without a length. Raises
        ObjectMissingError, StorageUnavailableError, or StorageError when the object is shorter than the span.
        """
        response, size_bytes = await self._opened(object_key, byte_range, known_bytes)
        etag = response.headers.get("ETag")
        begin = 0 if byte_range is None else byte_range.offset
        total = str(size_bytes) if byte_range is None else _total(response)

        async def reopen(offset: int, max_bytes: int | None) -> aiohttp.ClientResponse:
            rest_bytes = size_bytes - offset
            rest = ByteRange(begin + offset, rest_bytes if max_bytes is None else min(rest_bytes, max_bytes))
            again, _ = await self._opened(object_key, rest, None, wait_s=self._config.read_timeout_ms / 1000)
            if again.headers.get("ETag") != etag or _total(again) not in {total, None}:
                again.close()
                self.connections.release()
                raise StorageError(f"{object_key} is another object than a moment ago")
            return again

        return StoredObject(
            response,
            self._place,
            size_bytes=size_bytes,
            connections=self.connections,
            reopen=reopen,
            retries=self._retrying.begin(),
        )

    async def _opened(
        self, object_key: str, byte_range: ByteRange | None, known_bytes: int | None, *, wait_s: float | None = None
    ) -> tuple[aiohttp.ClientResponse, int]:
        """Ask for bytes over one of the connections, which whoever closes the response must release."""
        extra = {} if byte_range is None else {"Range": f"bytes={byte_range.offset}-{byte_range.last}"}
        with self._counted("get", object_key):
            await self.connections.acquire(wait_s=wait_s)
            try:
                response = await self._send("GET", object_key, unsigned=extra, limits=self._patient)
                try:
                    return response, await self._promised_size(response, object_key, byte_range, known_bytes)
                except BaseException:
                    response.close()
                    raise
            except BaseException:
                self.connections.release()
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
        await self._put("put", object_key, Chunks(chunks, size_bytes=size_bytes), signed=signed)

    async def put_part(
        self, object_key: str, upload_id: str, number: int, chunks: Sequence[bytes | memoryview], *, size_bytes: int
    ) -> str:
        """Put one part of a multipart upload; gives its ETag."""
        query = canonical_query([("partNumber", str(number)), ("uploadId", upload_id)])
        checked = self._config.content_md5 or self._config.checksum is not Checksum.NONE
        signed = await _off_loop(md5_header, chunks, size_bytes) if checked else {}
        body = Chunks(chunks, size_bytes=size_bytes)
        return await self._put("put_part", object_key, body, signed=signed, query=query)

    async def _put(
        self, operation: str, object_key: str, body: Chunks, *, signed: dict[str, str], query: str = ""
    ) -> str:
        with self._counted(operation, object_key):
            response = await self._send("PUT", object_key, query=query, signed=signed, body=body, limits=self._strict)
            try:
                if response.status != _OK:
                    await self._refuse(response, writing=True)
                await self._read_little(response)
            finally:
                response.close()
            if "ETag" not in response.headers:
                raise StorageError(f"{self._place.endpoint_url} took {object_key} without giving its ETag")
            return response.headers["ETag"]

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
        limits: aiohttp.ClientTimeout,
        query: str = "",
        signed: Mapping[str, str] | None = None,
        unsigned: Mapping[str, str] | None = None,
        body: Chunks | None = None,
    ) -> aiohttp.ClientResponse:
        path = self._base_path + quote_key(object_key)
        headers = await self._headers(method, path, query, signed or {})
        headers.update(unsigned or {})
        url = URL(f"{self._base}{path}?{query}" if query else f"{self._base}{path}", encoded=True)
        try:
            session = self._reading if method == "GET" else self._writing
            return await session.request(method, url, headers=headers, data=body, timeout=limits, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as exc:
            raise error_from_exception(exc, self._place) from exc

    async def presign(self, object_key: str, *, lifetime_s: int, overrides: Mapping[str, str]) -> str:
        """Make a URL at which S3 gives an object to whoever has it, with other response headers than the object's."""
        path = self._base_path + quote_key(object_key)
        query = presigned_query(
            await self._current_signer(),
            path=path,
            host=self._host,
            lifetime_s=lifetime_s,
            date=amz_date(int(time.time())),
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
        self, response: aiohttp.ClientResponse, object_key: str, byte_range: ByteRange | None, known_bytes: int | None
    ) -> int:
        if response.status != (_OK if byte_range is None else _PARTIAL_CONTENT):
            await self._refuse(response, object_key=object_key)
        size_bytes = response.content_length
        if size_bytes is None:  # a chunked answer, or one that ends with the connection: the bytes are counted
            size_bytes = known_bytes if byte_range is None else byte_range.size_bytes
        if size_bytes is None:
            raise UnknownLengthError(f"{self._place.endpoint_url} does not say how long {object_key} is")
        if byte_range is None:
            return size_bytes
        came_from = response.headers.get("Content-Range", "").partition("-")[0]
        if size_bytes != byte_range.size_bytes or came_from != f"bytes {byte_range.offset}":
            raise StorageError(f"{object_key} does not hold bytes {byte_range.offset} to {byte_range.last}")
        return size_bytes

    async def _refuse(
        self, response: aiohttp.ClientResponse, *, object_key: str | None = None, writing: bool = False
    ) -> None:
        body = await self._read_little(response)
        refusal = parse_error_response(response.status, body, retry_after=response.headers.get("Retry-After"))
        raise error_from_response(refusal, self._place, object_key=object_key, writing=writing)

    async def _read_little(self, response: aiohttp.ClientResponse) -> bytes:
        body = b""
        try:
            while len(body) < _ERROR_BODY_BYTES and (data := await response.content.readany()):
                body += data
        except (aiohttp.ClientError, OSError) as exc:
            raise error_from_exception(exc, self._place) from exc
        return body


def _total(response: aiohttp.ClientResponse) -> str | None:
    """Read the whole object's size out of Content-Range; None where it does not stand there."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return total if total.isdecimal() else None


def _address(config: StoreConfig) -> tuple[str, str, str]:
    """Scheme with host, path before every key, and Host header."""
    url = URL(config.endpoint_url)
    if not config.path_style:
        url = url.with_host(f"{config.bucket}.{url.host}")
    base_path = url.raw_path.rstrip("/") + (f"/{config.bucket}/" if config.path_style else "/")
    return str(url.origin()), base_path, url.host_port_subcomponent or ""


def _trust(config: StoreConfig) -> ssl.SSLContext:
    try:
        return tls_context(config.ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise StoreMisconfiguredError(f"ca_file {config.ca_file} cannot be used: {exc.strerror or exc}") from exc
