"""Colours and repetitions in AVIF boxes that the decoder does not report (ISO/IEC 14496-12)."""

from collections.abc import Iterator

_MAX_BOXES = 10_000
_HEAD_BYTES = {
    **dict.fromkeys((b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"iprp"), 0),
    b"meta": 4,
    b"stsd": 8,
    b"av01": 78,
}
"""Containers, and how much stands in each before the boxes in it."""


def _boxes(data: bytes, start: int, end: int, budget: Iterator[int]) -> Iterator[tuple[bytes, int, int]]:
    """Walk the boxes of a range: type, and where the content begins and ends; no more than there is budget for."""
    at = start
    for _ in budget:
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


def _find(
    data: bytes, path: tuple[bytes, ...], start: int, end: int, budget: Iterator[int] | None = None
) -> Iterator[tuple[int, int]]:
    """Find the contents of all boxes at a path."""
    budget = iter(range(_MAX_BOXES)) if budget is None else budget
    for kind, begin, stop in _boxes(data, start, end, budget):
        if kind != path[0]:
            continue
        if len(path) == 1:
            yield begin, stop
        elif kind in _HEAD_BYTES:
            yield from _find(data, path[1:], begin + _HEAD_BYTES[kind], stop, budget)


def colour_code_points(data: bytes) -> tuple[int, int] | None:
    """Return primaries and transfer of the primary item (H.273), None when there are none."""
    track = _find(data, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01", b"colr"), 0, len(data))
    item = [(begin, stop) for kind, begin, stop in _primary_properties(data) if kind == b"colr"]
    for begin, stop in [*track, *item] if data[8:12] == b"avis" else item:
        if data[begin : begin + 4] == b"nclx" and stop - begin >= 11:
            return _number(data, begin + 4, 2), _number(data, begin + 6, 2)
    return None


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of the primary item; None when there are none."""
    for kind, begin, stop in _primary_properties(data):
        if kind == b"ispe" and stop - begin >= 12:
            return _number(data, begin + 4, 4), _number(data, begin + 8, 4)
    return None


def _primary_properties(data: bytes) -> list[tuple[bytes, int, int]]:
    """List the properties of the primary item; all there are where the file does not say which are its."""
    for begin, stop in _find(data, (b"meta",), 0, len(data)):
        properties = [
            box
            for start, end in _find(data, (b"iprp", b"ipco"), begin + 4, stop)
            for box in _boxes(data, start, end, iter(range(_MAX_BOXES)))
        ]
        named = [data[start + 4 : end] for start, end in _find(data, (b"pitm",), begin + 4, stop)]
        primary = int.from_bytes(named[0][:4], "big") if named else None
        for start, end in _find(data, (b"iprp", b"ipma"), begin + 4, stop):
            numbers = _associations(data[start:end]).get(primary)
            if numbers is not None:
                return [properties[number - 1] for number in numbers if 0 < number <= len(properties)]
        return properties
    return []


def _associations(content: bytes) -> dict[int | None, list[int]]:
    """Read which items have which properties, by their numbers (ISO/IEC 23008-12, ipma)."""
    found, at = dict[int | None, list[int]](), 8
    id_bytes = 4 if content[:1] != b"\x00" else 2
    number_bytes = 2 if content[3:4] and content[3] & 1 else 1
    for _ in range(min(_number(content, 4, 4), _MAX_BOXES)):
        if at + id_bytes >= len(content):
            break
        item, count = _number(content, at, id_bytes), content[at + id_bytes]
        at += id_bytes + 1
        numbers = [_number(content, at + index * number_bytes, number_bytes) for index in range(count)]
        found[item] = [number & ((1 << (8 * number_bytes - 1)) - 1) for number in numbers]
        at += count * number_bytes
    return found


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def play_count(data: bytes) -> int:
    """Return the repetitions of an image sequence; 0 is endless, also when there is no count."""
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
