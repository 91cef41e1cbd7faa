import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.previews.encodings import Decoder, UnreadableEncodingError


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


@pytest.mark.parametrize("name", ["zstd", "gzip, br", "x" * 1000])
def test_other_encodings_are_refused(name: str) -> None:
    with pytest.raises(UnreadableEncodingError):
        Decoder(name, 1000)
