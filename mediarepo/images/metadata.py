"""Whether a file is only its picture, without metadata; unknown structures count as metadata."""

import re
from dataclasses import dataclass

from mediarepo.images.formats import PictureFormat

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
    """The structure of a JPEG.

    `in_memory` when all coefficients are buffered until the last scan; `missing_from` is where a file without an end
    marker stops being valid, None for others.
    """

    scans: int
    in_memory: bool
    missing_from: int | None


def read_jpeg(data: bytes, max_scans: int) -> JpegFile:
    """Parse the segments up to the end marker, or until there are more than `max_scans`: each decodes the whole image.

    Bytes after the end, such as the video of a motion photo, are not part of the picture.
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
    """Add an end marker to a truncated file: decoders then show what there is of each scan, and grey for the rest."""
    return data if jpeg.missing_from is None else data[: jpeg.missing_from].rstrip(b"\xff") + _END_MARKER


_PNG_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"bKGD", b"pHYs", b"IDAT", b"IEND"}
_WEBP_PICTURE = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
_JFIF = b"JFIF\x00"
_ADOBE = b"Adobe"


def is_bare(data: bytes, picture_format: PictureFormat) -> bool:
    """Return whether a still JPEG, PNG, GIF or WebP file has only its picture."""
    walk = {
        PictureFormat.JPEG: _jpeg_is_bare,
        PictureFormat.PNG: _png_is_bare,
        PictureFormat.GIF: _gif_is_bare,
        PictureFormat.WEBP: _webp_is_bare,
    }.get(picture_format)
    try:
        return walk is not None and walk(data)
    except (IndexError, ValueError):
        return False


def _jpeg_is_bare(data: bytes) -> bool:
    """Walk the segments (ITU-T T.81, annex B) up to the end marker, which must be the end."""
    at = 2
    while True:
        if data[at] != 0xFF:
            return False
        marker, at = data[at + 1], at + 2
        if marker == 0xD9:
            return at == len(data)
        size = int.from_bytes(data[at : at + 2], "big")
        segment, at = data[at + 2 : at + size], at + size
        if not _jpeg_segment_is_picture(marker, segment) or size < 2:
            return False
        if marker == 0xDA:
            at = _after_scan(data, at)


def _jpeg_segment_is_picture(marker: int, segment: bytes) -> bool:
    if marker == 0xE0:
        return segment.startswith(_JFIF) and segment[12:14] == b"\x00\x00" and len(segment) == 14
    if marker == 0xEE:
        return segment.startswith(_ADOBE) and len(segment) == 12
    return marker in {0xDB, 0xC4, 0xDA, 0xDD} or 0xC0 <= marker <= 0xCF


def _after_scan(data: bytes, at: int) -> int:
    while True:
        at = data.index(b"\xff", at)
        if data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
            at += 2
        else:
            return at


def _png_is_bare(data: bytes) -> bool:
    """Walk the chunks (PNG specification, section 5) up to IEND, which must be the end."""
    at = 8
    while True:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + size
        if kind not in _PNG_PICTURE or at > len(data):
            return False
        if kind == b"IEND":
            return at == len(data)


def _webp_is_bare(data: bytes) -> bool:
    """Walk the chunks of the RIFF container; animation, EXIF, XMP and ICC are more than the picture."""
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        return False
    at = 12
    while at < len(data):
        size, kind = int.from_bytes(data[at + 4 : at + 8], "little"), data[at : at + 4]
        if kind not in _WEBP_PICTURE:
            return False
        at += 8 + size + size % 2
    return at == len(data)


def _gif_is_bare(data: bytes) -> bool:
    """Walk the blocks (GIF89a specification) of one frame up to the trailer, which must be the end."""
    at = 13 + _colour_table_bytes(data[10])
    frames = 0
    while True:
        introducer = data[at]
        if introducer == 0x3B:
            return at + 1 == len(data) and frames == 1
        if introducer == 0x21 and data[at + 1] == 0xF9:
            at = _after_sub_blocks(data, at + 2)
        elif introducer == 0x2C:
            frames += 1
            at = _after_sub_blocks(data, at + 11 + _colour_table_bytes(data[at + 9]))
        else:
            return False


def _colour_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1
