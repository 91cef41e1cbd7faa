"""JPEG files read by their structure (ITU-T T.81, annex B)."""

import re
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff+[^\xff\x00\xd0-\xd8]")
"""A marker, not counting stuffed bytes, restarts and SOI."""
_END, _SCAN, _TEMPORARY = 0xD9, 0xDA, 0x01
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_FRAME_BYTES = 8
"""As much of a frame's or a scan's header as is looked at."""
_END_MARKER = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class JpegFile:
    """What there is of a JPEG.

    `in_memory` is one whose coefficients are all kept in memory until its last scan; `missing_from` is where a file
    that lacks its end stops making sense, None for others.
    """

    scans: int
    in_memory: bool
    missing_from: int | None


def read_jpeg(data: bytes, max_scans: int) -> JpegFile:
    """Walk the segments up to the end marker, or until there are more than `max_scans`: each is decoded over the whole.

    What lies behind the end, such as the video of a motion photograph, is none of the picture.
    """
    scans, at, in_memory, components = 0, 2, False, 0
    while scans <= max_scans:
        found = _MARKER.search(data, at)
        if found is None:
            return JpegFile(scans, in_memory, len(data))
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            break
        if marker == _TEMPORARY:
            continue
        end = at + max(int.from_bytes(data[at : at + 2], "big"), 2)
        if end > len(data) or at + _FRAME_BYTES > len(data):
            return JpegFile(scans, in_memory, found.start())
        if marker in _FRAMES:
            components = data[at + 7]
        in_memory = in_memory or marker in _PROGRESSIVE or (marker == _SCAN and data[at + 2] < components)
        scans += marker == _SCAN
        at = end
    return JpegFile(scans, in_memory, None)


def with_end(data: bytes, jpeg: JpegFile) -> bytes:
    """Give a file that lacks its end one: decoders then show what there is of each scan, and grey for the rest."""
    return data if jpeg.missing_from is None else data[: jpeg.missing_from].rstrip(b"\xff") + _END_MARKER
