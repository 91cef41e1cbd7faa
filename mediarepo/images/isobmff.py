"""What AVIF files say of colours and repetitions in boxes that the decoder keeps to itself (ISO/IEC 14496-12)."""

from collections.abc import Iterator

_MAX_BOXES = 10_000
_CONTAINERS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"meta", b"iprp", b"ipco"}


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Walk the boxes of a range: type, and where the content begins and ends."""
    at = start
    for _ in range(_MAX_BOXES):
        if at + 8 > end:
            return
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = end - at
        if size < head or at + size > end:
            return
        yield kind, at + head, at + size
        at += size


def _find(data: bytes, path: tuple[bytes, ...], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Find the contents of all boxes at a path."""
    for kind, begin, stop in _boxes(data, start, end):
        if kind != path[0]:
            continue
        if len(path) == 1:
            yield begin, stop
        elif kind in _CONTAINERS:
            yield from _find(data, path[1:], begin + (4 if kind == b"meta" else 0), stop)


def colour_code_points(data: bytes) -> tuple[int, int] | None:
    """Read primaries and transfer of the first picture (H.273), None when none are given."""
    for begin, stop in _find(data, (b"meta", b"iprp", b"ipco", b"colr"), 0, len(data)):
        if data[begin : begin + 4] == b"nclx" and stop - begin >= 11:  # noqa: PLR2004 - its fixed size
            return int.from_bytes(data[begin + 4 : begin + 6], "big"), int.from_bytes(
                data[begin + 6 : begin + 8], "big"
            )
    return None


def play_count(data: bytes) -> int:
    """Read how often an image sequence is shown; 0 is for ever, which is also what is not said."""
    for begin, stop in _find(data, (b"moov", b"trak"), 0, len(data)):
        lists = list(_find(data, (b"edts", b"elst"), begin, stop))
        headers = list(_find(data, (b"tkhd",), begin, stop))
        if not lists or not headers:
            continue
        if not data[lists[0][0] + 3] & 1:  # no repetition: shown once
            return 1
        track, segment = _duration(data, headers[0][0], 20, 28), _duration(data, lists[0][0], 8, 8)
        if track is None or not segment:
            return 0
        return max(-(-track // segment), 1)
    return 0


def _duration(data: bytes, begin: int, at_32: int, at_64: int) -> int | None:
    """Read a duration whose size and place depend on the box's version; None for an unknown one."""
    size, at = (8, at_64) if data[begin] == 1 else (4, at_32)
    value = int.from_bytes(data[begin + at : begin + at + size], "big")
    return None if value == (1 << (8 * size)) - 1 else value
