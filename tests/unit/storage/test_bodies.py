import base64
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.config.storage import Checksum
from mediarepo.storage.aiohttp_transport import Chunks
from mediarepo.storage.s3_client import checksum_header, encode_metadata, md5_header, metadata_headers
from mediarepo.storage.transport import Body


class Writer:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, piece: bytes) -> None:
        self.pieces.append(bytes(piece))


@pytest.mark.parametrize("chunks", [[], [b""], [b"abc", b"", b"de"], [b"x" * 700_000, b"y"]])
async def test_a_body_is_sent_whole_as_often_as_asked(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    body = Chunks(Body(chunks, size_bytes=len(whole)))
    for _ in range(2):
        writer = Writer()
        await body.write(writer)  # type: ignore[arg-type]  # the one method of aiohttp's writer that is used
        assert b"".join(writer.pieces) == whole
        assert all(len(piece) <= 256 * 1024 for piece in writer.pieces)


def test_a_body_shows_itself_as_text() -> None:
    assert Chunks(Body([b"ab", b"c"], size_bytes=3)).decode() == "abc"


def test_chunks_that_do_not_add_up_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="add up"):
        Body([b"abc"], size_bytes=4)


@given(st.text())
def test_metadata_are_plain_ascii_without_blanks(value: str) -> None:
    encoded = encode_metadata(value)
    assert encoded.isascii()
    assert not any(character.isspace() for character in encoded)


def test_a_matrix_uri_stays_readable_in_metadata() -> None:
    assert metadata_headers({"Mxc": "mxc://example.org/a_B-1"}) == {"x-amz-meta-mxc": "mxc://example.org/a_B-1"}


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_checksums_are_those_of_the_whole(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    md5 = base64.b64decode(md5_header(chunks)["content-md5"])
    crc32 = base64.b64decode(checksum_header(Checksum.CRC32, chunks)["x-amz-checksum-crc32"])
    sha256 = base64.b64decode(checksum_header(Checksum.SHA256, chunks)["x-amz-checksum-sha256"])
    assert md5 == hashlib.md5(whole, usedforsecurity=False).digest()
    assert int.from_bytes(crc32, "big") == zlib.crc32(whole)
    assert sha256 == hashlib.sha256(whole).digest()
    assert checksum_header(Checksum.NONE, chunks) == {}
