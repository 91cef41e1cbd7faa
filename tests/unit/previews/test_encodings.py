import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.previews.encoding import Decoder, UnreadableEncodingError


def raw_deflate(data: bytes) -> bytes:
    deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflating.compress(data) + deflating.flush()


ENCODINGS: dict[str, tuple[str | None, Callable[[bytes], bytes]]] = {
    "none": (None, bytes),
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP ", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
}


def undone(name: str | None, encoded: bytes, max_bytes: int, step: int = 1000) -> bytes:
    decoder = Decoder(name, max_bytes)
    for start in range(0, len(encoded), step):
        decoder.feed(encoded[start : start + step])
    return bytes(decoder.body)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(data=st.binary(max_size=5000), step=st.integers(1, 3000))
def test_what_was_encoded_comes_back_however_it_is_cut(encoding: str, data: bytes, step: int) -> None:
    name, encode = ENCODINGS[encoding]

    assert undone(name, encode(data), 10_000, step) == data


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_too_much_is_cut_off_at_the_bound(encoding: str) -> None:
    name, encode = ENCODINGS[encoding]
    encoded = encode(b"x" * 5_000_000)

    assert undone(name, encoded, 100_000, len(encoded)) == b"x" * 100_000


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_broken_bodies_are_refused(name: str) -> None:
    with pytest.raises(UnreadableEncodingError):
        undone(name, b"this is none of it, whatever the header says" * 10, 1000)


@pytest.mark.parametrize("name", ["zstd", "gzip, zstd", "gzip, gzip, gzip, gzip", ", ".join(["br"] * 1000)])
def test_encodings_that_would_have_to_be_undone_and_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(UnreadableEncodingError):
        Decoder(name, 1000)


@pytest.mark.parametrize("name", ["", "none", "utf-8", "UTF-8", "aws-chunked", "x" * 1000, "identity, none", ",,"])
def test_encodings_that_nobody_knows_are_ignored(name: str) -> None:
    assert undone(name, b"as it is", 1000) == b"as it is"


def test_encodings_inside_one_another_are_undone_from_the_last() -> None:
    data = b"a page" * 1000

    assert undone("gzip, br", brotli.compress(gzip.compress(data)), 10_000, 7) == data
    assert undone("gzip, utf-8", gzip.compress(data), 10_000, 7) == data
    assert undone("gzip, gzip", gzip.compress(gzip.compress(data)), 10_000, 1) == data


def test_an_encoding_named_twice_but_used_once_is_undone_once() -> None:
    assert undone("gzip, gzip", gzip.compress(b"a page"), 1000, 1) == b"a page"
    assert undone("gzip, gzip", gzip.compress(b"a"), 1000) == b"a"


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress])
def test_a_body_that_breaks_off_or_goes_on_is_what_it_is_up_to_there(encode: Callable[[bytes], bytes]) -> None:
    name = "gzip" if encode is gzip.compress else "deflate"
    data = b"".join(b"line %d\n" % number for number in range(5000))
    encoded = encode(data)

    assert undone(name, encoded + b"garbage" * 100, 100_000, 50) == data
    assert undone(name, encoded[:-1], 100_000) == data
    assert data.startswith(undone(name, encoded[:-20], 100_000))
    broken = undone(name, encoded[: len(encoded) // 2] + b"\xff" * 1000, 100_000, 10)
    assert len(broken) > 1000
    assert broken[:1000] == data[:1000]


def test_a_bomb_inside_a_bomb_is_cut_off_at_the_bound() -> None:
    bomb = gzip.compress(gzip.compress(b"x" * 50_000_000))

    assert undone("gzip, gzip", bomb, 100_000, len(bomb)) == b"x" * 100_000
