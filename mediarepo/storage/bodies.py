"""Request bodies: chunks sent one after another, as often as needed, never joined."""

import base64
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from mediarepo.config.storage import Checksum

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


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
