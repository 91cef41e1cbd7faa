import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.federation.multipart import (
    MixedBody,
    MultipartError,
    PartHeaders,
    mixed_head,
    mixed_redirect,
    mixed_tail,
    new_boundary,
    parse_boundary,
)

BOUNDARY = "gc0p4Jq0M2Yt08jU534c0p"
HEAD = (
    f"\r\n--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{BOUNDARY}\r\n"
    "Content-Type: image/png\r\nContent-Disposition: inline; filename=file.png\r\n\r\n"
).encode()
PNG = PartHeaders("image/png", "inline; filename=file.png")
near_boundaries = st.lists(
    st.sampled_from([b"\r\n--", b"\r\n", b"-", b"--", BOUNDARY.encode(), BOUNDARY[:-1].encode(), b"x", b"\r", b"\n"]),
    max_size=30,
).map(b"".join)
files = st.one_of(st.binary(max_size=300), near_boundaries).filter(
    lambda data: f"\r\n--{BOUNDARY}".encode() not in data
)


class Chunks:
    """A body that comes in pieces of given sizes, again and again."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes, self._at = data, sizes, 0
        self.reads = 0

    async def read(self) -> bytes:
        size = self._sizes[self.reads % len(self._sizes)]
        self.reads += 1
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece


async def whole(source: Chunks, boundary: str = BOUNDARY, *, ends_by_length: bool = False) -> tuple[PartHeaders, bytes]:
    body = MixedBody(source, boundary, ends_by_length=ends_by_length)
    headers, pieces = await body.begin(), []
    while piece := await body.read():
        pieces.append(piece)
    assert await body.read() == b""
    return headers, b"".join(pieces)


def read(data: bytes, sizes: list[int] | None = None) -> tuple[PartHeaders, bytes]:
    return asyncio.run(whole(Chunks(data, sizes or [65_536])))


def test_the_head_is_the_specs_to_the_byte() -> None:
    assert mixed_head(BOUNDARY, "image/png", "inline; filename=file.png") == HEAD
    assert mixed_tail(BOUNDARY) == f"\r\n--{BOUNDARY}--\r\n".encode()
    assert len(new_boundary()) == 32
    assert new_boundary().isalnum()
    assert new_boundary() != new_boundary()


def test_a_redirect_has_its_location_as_the_only_header() -> None:
    body = mixed_redirect(BOUNDARY, "https://cdn.example.org/ab/c1/2345.txt")

    headers, data = read(body)

    assert headers == PartHeaders(location="https://cdn.example.org/ab/c1/2345.txt")
    assert data == b""
    assert body.count(b"\r\nLocation: https://cdn.example.org/ab/c1/2345.txt\r\n\r\n") == 1


@given(
    data=files,
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    closing=st.sampled_from([b"--\r\n", b"--", b"", b"--\r\nan epilogue", b"\r\n"]),
)
def test_any_file_comes_through_in_any_pieces_however_the_body_ends(
    data: bytes, sizes: list[int], closing: bytes
) -> None:
    body = HEAD + data + f"\r\n--{BOUNDARY}".encode() + closing

    assert read(body, sizes) == (PNG, data)


@given(data=files, cut=st.integers(0, 400), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_a_body_that_is_cut_off_is_an_error(data: bytes, cut: int, sizes: list[int]) -> None:
    body = HEAD + data + f"\r\n--{BOUNDARY}".encode()

    with pytest.raises(MultipartError):
        read(body[: min(cut, len(body) - 1)], sizes)


@given(st.binary(max_size=500))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(MultipartError):
        read(data + HEAD[:40])


def ends_within_a_boundary(data: bytes) -> bool:
    delimiter = f"\r\n--{BOUNDARY}".encode()
    return any(data.endswith(delimiter[:kept]) for kept in range(1, len(delimiter)))


lf_files = st.one_of(st.binary(max_size=300), near_boundaries).filter(
    lambda data: f"\n--{BOUNDARY}".encode() not in data
)


@given(data=lf_files, sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_a_body_with_bare_line_feeds_throughout_is_read(data: bytes, sizes: list[int]) -> None:
    head = HEAD.replace(b"\r\n", b"\n")

    assert read(head + data + f"\n--{BOUNDARY}--\n".encode(), sizes) == (PNG, data)


def test_a_body_as_go_writes_it_in_its_tests_is_read() -> None:
    body = b"--X1\nContent-Type: application/json\n\n{}\n--X1\nContent-Type: image/png\n\nPNGDATA\n--X1--\n"

    for size in (1, 7, 4096):
        assert asyncio.run(whole(Chunks(body, [size]), "X1")) == (PartHeaders("image/png"), b"PNGDATA")


@given(
    data=files,
    more=st.sampled_from([b"0", b"-", b"x--", b"\x00", b"-x"]),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_what_only_begins_like_the_boundary_is_the_files(data: bytes, more: bytes, sizes: list[int]) -> None:
    inside = data + f"\r\n--{BOUNDARY}".encode() + more + b"z" + data

    assert read(HEAD + inside + mixed_tail(BOUNDARY), sizes) == (PNG, inside)


def test_a_preamble_and_metadata_may_hold_what_only_begins_like_the_boundary() -> None:
    near = f"\r\n--{BOUNDARY}0".encode()

    assert read(near + HEAD + b"data" + mixed_tail(BOUNDARY)) == (PNG, b"data")


@given(
    data=files.filter(lambda data: not ends_within_a_boundary(data)),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_a_missing_last_boundary_is_forgiven_only_where_the_length_says_that_all_is_there(
    data: bytes, sizes: list[int]
) -> None:
    assert asyncio.run(whole(Chunks(HEAD + data, sizes), ends_by_length=True)) == (PNG, data)
    with pytest.raises(MultipartError):
        asyncio.run(whole(Chunks(HEAD + data, sizes)))


@pytest.mark.parametrize("kept", range(5, len(BOUNDARY) + 4))
def test_a_body_that_ends_within_its_last_boundary_is_an_error(kept: int) -> None:
    with pytest.raises(MultipartError):
        asyncio.run(whole(Chunks(HEAD + b"data" + mixed_tail(BOUNDARY)[:kept], [10]), ends_by_length=True))


def test_folded_headers_are_one_line() -> None:
    head = HEAD.replace(b"Content-Disposition: inline; ", b"Content-Disposition: inline;\r\n\t ")
    lonely = HEAD.replace(b"Content-Type: image/png", b" folded: nothing\r\nContent-Type: image/png")

    assert read(head + b"data" + mixed_tail(BOUNDARY)) == (PNG, b"data")
    assert read(lonely + b"data" + mixed_tail(BOUNDARY)) == (PNG, b"data")


HEADERS = [
    (HEAD.replace(b"\r\nContent-Type", b"\nContent-Type").replace(b"png\r\n", b"png\n"), PNG),
    (HEAD.replace(b"Content-Type: image/png", b"CONTENT-type:image/png"), PNG),
    (HEAD.replace(b"Content-Type: application/json", b"Content-Type: application/json; charset=utf-8"), PNG),
    (HEAD.replace(b"Content-Type: application/json\r\n", b""), PNG),
    (HEAD.replace(b"Content-Disposition: inline; filename=file.png\r\n", b""), PartHeaders("image/png")),
    (HEAD.replace(b"Content-Type: image/png\r\n", b""), PartHeaders(None, "inline; filename=file.png")),
    (HEAD.replace(b"image/png\r\n", b"image/png\r\nContent-Length: 4\r\n"), PartHeaders(*("image/png",), size_bytes=4)),
    (HEAD.replace(b"image/png\r\n", b"image/png\r\nContent-Length: -4\r\n"), PNG),
    (HEAD.removeprefix(b"\r\n"), PNG),
    (b"a preamble\r\nof two lines" + HEAD, PNG),
    (HEAD.replace(b"{}", json.dumps({"restrictions": {"event_id": "$a"}}).encode()), PNG),
    (HEAD.replace(b"{}", b" {}\r\n "), PNG),
]


@pytest.mark.parametrize(("head", "expected"), HEADERS)
@pytest.mark.parametrize("size", [1, 7, 65_536])
def test_what_servers_send_is_understood(head: bytes, expected: PartHeaders, size: int) -> None:
    headers, data = read(head + b"data" + mixed_tail(BOUNDARY), [size])

    assert data == b"data"
    assert (headers.content_type, headers.location) == (expected.content_type, expected.location)
    assert headers.size_bytes == expected.size_bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        f"--{BOUNDARY}--\r\n".encode(),
        HEAD.replace(b"{}", b""),
        HEAD.replace(b"{}", b"{'a': 1}"),
        HEAD.replace(b"{}", b"[" * 70_000),
        HEAD.replace(b"{}", b" " * 200_000),
        HEAD.replace(b"image/png", b"a" * 50_000),
        HEAD.replace(b"image/png\r\n", b"image/png\r\n" + b"x: y\r\n" * 10_000),
        b"x" * 100_000 + HEAD,
    ],
)
def test_what_is_no_such_body_is_an_error(body: bytes) -> None:
    with pytest.raises(MultipartError):
        read(body + b"data" + mixed_tail(BOUNDARY) if BOUNDARY.encode() in body[:200] else body, [4096])


async def test_a_hostile_preamble_is_given_up_soon() -> None:
    source = Chunks(b"\r\n-" * 40_000_000, [65_536])

    with pytest.raises(MultipartError):
        await MixedBody(source, BOUNDARY).begin()

    assert source.reads < 5


async def test_a_file_of_near_boundaries_passes_without_being_gathered() -> None:
    data = f"\r\n--{BOUNDARY[:-1]}".encode() * 100_000
    body = MixedBody(Chunks(HEAD + data + mixed_tail(BOUNDARY), [4096]), BOUNDARY)
    await body.begin()
    total = largest = 0
    while piece := await body.read():
        total, largest = total + len(piece), max(largest, len(piece))

    assert (total, largest <= 8192) == (len(data), True)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"multipart/mixed; boundary={BOUNDARY}", BOUNDARY),
        (f'multipart/mixed; boundary="{BOUNDARY}"', BOUNDARY),
        (f"Multipart/Mixed;charset=utf-8; Boundary={BOUNDARY}; x=y", BOUNDARY),
        (f'multipart/mixed; charset="a; boundary=other"; boundary = "{BOUNDARY}" ', BOUNDARY),
        (r'multipart/mixed; boundary="a;b \\ \"c"', r'a;b \ "c'),
    ],
)
def test_the_boundary_is_found(header: str, expected: str) -> None:
    assert parse_boundary(header) == expected


@pytest.mark.parametrize(
    "header", ["", "image/png", "multipart/mixed", "multipart/mixed; boundary=", "multipart/form-data; boundary=x"]
)
def test_an_answer_without_a_boundary_is_an_error(header: str) -> None:
    with pytest.raises(MultipartError):
        parse_boundary(header)
    with pytest.raises(MultipartError):
        parse_boundary(f"multipart/mixed; boundary={'x' * 300}")
