import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.errors import RangeNotSatisfiableError
from mediarepo.model.byte_stream import ByteRange
from mediarepo.web.http.headers import parse_range

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "byte_range"),
    [
        ("bytes=0-1", ByteRange(0, 2)),
        ("bytes=0-", ByteRange(0, 1000)),
        ("bytes=999-", ByteRange(999, 1)),
        ("bytes=5-5", ByteRange(5, 1)),
        ("bytes=990-2000", ByteRange(990, 10)),
        ("bytes=-1", ByteRange(999, 1)),
        ("bytes=-5000", ByteRange(0, 1000)),
        ("Bytes=0-1", ByteRange(0, 2)),
        ("bytes= 0-1 ", ByteRange(0, 2)),
    ],
)
def test_a_single_range_becomes_a_span(header: str, byte_range: ByteRange) -> None:
    assert parse_range(header, SIZE) == byte_range


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-1",
        "bytes=0-1,4-5",
        "items=0-1",
        "bytes=--1",
        "bytes=0x0-1",
        "bytes=\u0660-1",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)),
        "bytes=0-" + "9" * 100_000,
    ],
)
def test_several_ranges_and_nonsense_are_answered_with_the_whole(header: str | None) -> None:
    assert parse_range(header, SIZE) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=1000-", SIZE), ("bytes=-0", SIZE), ("bytes=0-", 0)])
def test_a_range_without_any_byte_is_refused_with_the_size(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiableError) as refused:
        parse_range(header, size)
    assert refused.value.size_bytes == size


def test_a_suffix_of_nothing_is_nothing_not_an_error() -> None:
    assert parse_range("bytes=-5", 0) is None


@given(st.text(max_size=80), st.integers(min_value=0, max_value=2**62))
def test_whatever_comes_a_span_lies_within_the_whole(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            byte_range = parse_range(header, size)
        except RangeNotSatisfiableError:
            continue
        if byte_range is not None:
            assert 0 <= byte_range.offset <= byte_range.last < size
