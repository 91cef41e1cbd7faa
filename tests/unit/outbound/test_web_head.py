import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.outbound.web_response import (
    BodyFraming,
    HeadError,
    body_framing,
    body_reader,
    find_end,
    location,
    parse_head,
    refresh,
)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/1.1 200 ", 200),
        (b"http/1.1 404 not", 404),
        (b"HTTP/1.0 200 OK", 200),
        (b"HTTP/1.1  200  OK", 200),
        (b"HTTP/1.1\t301 \xf6", 301),
        (b"HTTP 200 OK", 200),
        (b"\r\nHTTP/1.1 200 OK", 200),
        (b"HTTP/1.1200 OK", 200),
    ],
)
def test_a_status_line_is_read_as_people_write_it(line: bytes, status: int) -> None:
    assert parse_head(line + b"\r\n\r\n").status == status


@pytest.mark.parametrize(
    "line", [b"", b"<html>", b"SSH-2.0-x", b"ICY 200 OK", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"HTTP/1.1 OK"]
)
def test_what_is_no_http_is_refused(line: bytes) -> None:
    with pytest.raises(HeadError):
        parse_head(line + b"\r\n\r\n")


def test_lines_that_are_no_headers_are_passed_over() -> None:
    head = parse_head(
        b"HTTP/1.1 200 OK\n first: folded onto nothing\r\nA: 1\ngarbage\r\n continues garbage\r\nB : 2\r\n: 3\r\n"
        b"c d: 4\r\nE:\r\n  folded\r\n\tfurther \r\nF: a\x00b\rc\r\nA: 5\r\n"
        b"G: gr\xc3\xb6\xc3\x9fe\r\nH: gr\xf6\xdfe\r\n\r\n"
    )

    assert head.texts("a") == ["1", "5"]
    assert head.text("A") == "1, 5"
    assert head.texts("B") == ["2"]
    assert head.texts("E") == ["folded further"]
    assert head.texts("F") == ["abc"]
    assert head.text("G") == head.text("H") == "gr\u00f6\u00dfe"
    assert head.text("garbage") is head.text("first") is None
    assert len(head.headers) == 7


@pytest.mark.parametrize("data", [b"a\r\n\r\nbody", b"a\n\nbody", b"a\r\n\nbody", b"a\n\r\nbody"])
def test_an_empty_line_ends_the_head_however_it_ends(data: bytes) -> None:
    assert data[find_end(data) :] == b"body"


def head_of(*lines: str, first: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], (BodyFraming.CLOSE, 0)),
        (["Content-Length: 5"], (BodyFraming.LENGTH, 5)),
        (["Content-Length: 5", "Content-Length: 5"], (BodyFraming.LENGTH, 5)),
        (["Content-Length: 5, 5"], (BodyFraming.LENGTH, 5)),
        (["Content-Length: 005"], (BodyFraming.LENGTH, 5)),
        (["Content-Length: five"], (BodyFraming.CLOSE, 0)),
        (["Content-Length: -5"], (BodyFraming.CLOSE, 0)),
        (["Content-Length: +5"], (BodyFraming.CLOSE, 0)),
        (["Content-Length:"], (BodyFraming.CLOSE, 0)),
        (["Content-Length: 99999999999999999999"], (BodyFraming.CLOSE, 0)),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], (BodyFraming.CHUNKED, 0)),
        (["Transfer-Encoding: Chunked", "Content-Length: 5", "Content-Length: 6"], (BodyFraming.CHUNKED, 0)),
        (["Transfer-Encoding: gzip, chunked"], (BodyFraming.CHUNKED, 0)),
        (["Transfer-Encoding: identity", "Content-Length: 5"], (BodyFraming.LENGTH, 5)),
    ],
)
def test_the_end_of_a_body_is_where_browsers_see_it(lines: list[str], expected: tuple[BodyFraming, int]) -> None:
    assert body_framing(parse_head(head_of(*lines))) == expected


def test_chunks_do_not_count_before_http_1_1() -> None:
    old = parse_head(head_of("Transfer-Encoding: chunked", "Content-Length: 5", first="HTTP/1.0 200 OK"))

    assert body_framing(old) == (BodyFraming.LENGTH, 5)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_some_answers_have_no_body(status: int) -> None:
    assert body_framing(parse_head(head_of("Content-Length: 5", first=f"HTTP/1.1 {status} x"))) == (BodyFraming.NONE, 0)


def test_two_lengths_are_refused() -> None:
    with pytest.raises(HeadError):
        body_framing(parse_head(head_of("Content-Length: 5", "Content-Length: 6")))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"Location: /a b"], "/a b"),
        ([b"Location: /gr\xc3\xb6\xc3\x9fe"], "/gr%C3%B6%C3%9Fe"),
        ([b"Location: /gr\xf6\xdfe"], "/gr%F6%DFe"),
        ([b"Location:", b"Location: /a"], "/a"),
        ([b"Location: /a", b"location: /a"], "/a"),
        ([b"Location:"], None),
        ([b"Location: /a#b"], "/a#b"),
        ([], None),
    ],
)
def test_a_location_is_escaped_byte_by_byte(lines: list[bytes], expected: str | None) -> None:
    assert location(parse_head(b"\r\n".join([b"HTTP/1.1 302 Found", *lines, b"", b""]))) == expected


def test_locations_count_in_redirects_only_and_must_agree() -> None:
    assert location(parse_head(head_of("Location: /a"))) is None
    assert location(parse_head(head_of("Location: /a", first="HTTP/1.1 300 x"))) is None
    with pytest.raises(HeadError):
        location(parse_head(head_of("Location: /a", "Location: /b", first="HTTP/1.1 302 x")))


def test_the_first_refresh_counts() -> None:
    assert refresh(parse_head(head_of("Refresh: 0;url=/a", "Refresh: 0;url=/b"))) == "0;url=/a"


def read(framing_of: BodyFraming, data: bytes, step: int, size: int = 0) -> bytes:
    reader = body_reader(framing_of, size)
    return b"".join(reader.feed(data[at : at + step]) for at in range(0, len(data), step) if not reader.is_done)


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"5\nhello\n6\n world\n0\n\n",
        b"005;x=y\r\nhello\r\n6 ; z\r\n world\r\n0;a\r\nTrailer: x\r\n\r\n",
        b" 5 \r\nhello\r\n6\r\n world\r\n",
        b"5\r\nhello\r\n6\r\n world",
        b"5\r\nhello\r\n6\r\n world\r\nnonsense\r\n5\r\nmore!\r\n",
        b"5\r\nhello\r\nFFFF\r\n world",
        b"5\r\nhello6\r\n world0\r\n\r\n",
        b"B\r\nhello world\r\n-1\r\nx",
        b"B\r\nhello world\r\n\r\n5\r\nagain",
        b"B\r\nhello world\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nanother answer",
    ],
)
def test_chunks_are_read_up_to_where_they_make_no_sense(data: bytes, step: int) -> None:
    assert read(BodyFraming.CHUNKED, data, step) == b"hello world"


def test_a_chunk_line_without_end_ends_the_body() -> None:
    reader = body_reader(BodyFraming.CHUNKED, 0)
    for _ in range(100):
        assert reader.feed(b"1" * 1000) == b""

    assert reader.is_done


def test_a_declared_length_is_the_most_that_is_read() -> None:
    assert read(BodyFraming.LENGTH, b"hello world", 3, 5) == b"hello"
    assert read(BodyFraming.LENGTH, b"hello", 3, 500) == b"hello"
    assert read(BodyFraming.CLOSE, b"hello", 2) == b"hello"


@given(
    st.binary(max_size=300)
    | st.from_regex(rb"\AHTTP/1\.1 [0-9]{3} [^\n]{0,9}\n([A-Za-z-]{1,4}[ :]{0,2}[^\n]{0,9}\n){0,5}")
)
def test_any_bytes_are_a_head_or_are_refused(data: bytes) -> None:
    try:
        head = parse_head(data)
        body_framing(head)
        location(head)
    except HeadError:
        return
    for name, value in head.headers:
        assert name == name.lower()
        assert not {b"\r", b"\n", b"\0"} & {bytes([byte]) for byte in value}


@given(chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=8), step=st.integers(1, 60))
def test_chunks_come_out_as_they_went_in_however_they_are_cut(chunks: list[bytes], step: int) -> None:
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"

    assert read(BodyFraming.CHUNKED, data, step) == b"".join(chunks)


@given(data=st.binary(max_size=200), step=st.integers(1, 60))
def test_any_bytes_are_chunks_up_to_some_point(data: bytes, step: int) -> None:
    assert len(read(BodyFraming.CHUNKED, data, step)) <= len(data)
    assert read(BodyFraming.CHUNKED, data, step) == read(BodyFraming.CHUNKED, data, 1000)
