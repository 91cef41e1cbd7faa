"""Image formats by their magic bytes; the declared content type never counts."""

import re
from enum import StrEnum

from mediarepo.images import jpeg_xl_header


class PictureFormat(StrEnum):
    """A supported format, by Pillow's name where Pillow decodes it."""

    JPEG = "JPEG"
    PNG = "PNG"
    GIF = "GIF"
    WEBP = "WEBP"
    AVIF = "AVIF"
    BMP = "BMP"
    TIFF = "TIFF"
    HEIC = "HEIF"
    MP4 = "MP4"
    MATROSKA = "MATROSKA"
    OGG = "OGG"
    SVG = "SVG"
    JPEG_2000 = "JPEG2000"
    JPEG_XL = "JXL"
    MP3 = "MP3"
    FLAC = "FLAC"
    WAV = "WAV"


HEAD_BYTES = 1024
"""As much of a file's beginning as `sniff` needs."""

CONTENT_TYPES = {
    PictureFormat.JPEG: "image/jpeg",
    PictureFormat.PNG: "image/png",
    PictureFormat.GIF: "image/gif",
    PictureFormat.WEBP: "image/webp",
}
"""Formats that may be sent as they are, and by which type."""

DECLARED_TYPES = {
    **CONTENT_TYPES,
    PictureFormat.AVIF: "image/avif",
    PictureFormat.BMP: "image/bmp",
    PictureFormat.TIFF: "image/tiff",
    PictureFormat.HEIC: "image/heic",
    PictureFormat.MP4: "video/mp4",
    PictureFormat.MATROSKA: "video/webm",
    PictureFormat.OGG: "video/ogg",
    PictureFormat.SVG: "image/svg+xml",
    PictureFormat.JPEG_2000: "image/jp2",
    PictureFormat.JPEG_XL: "image/jxl",
    PictureFormat.MP3: "audio/mpeg",
    PictureFormat.FLAC: "audio/flac",
    PictureFormat.WAV: "audio/wav",
}
"""What each format is called in a Content-Type."""

VIDEOS = frozenset({PictureFormat.MP4, PictureFormat.MATROSKA, PictureFormat.OGG})
RECORDINGS = VIDEOS | {PictureFormat.MP3, PictureFormat.FLAC, PictureFormat.WAV}
"""Videos and sound; what of both is in a container of the former is not known before it is opened."""
SWITCHES = {
    PictureFormat.HEIC: frozenset({"heic"}),
    PictureFormat.SVG: frozenset({"svg"}),
    PictureFormat.JPEG_2000: frozenset({"jpeg2000"}),
    PictureFormat.JPEG_XL: frozenset({"jxl"}),
    **dict.fromkeys(RECORDINGS, frozenset({"waveform"})),
    **dict.fromkeys(VIDEOS, frozenset({"video", "waveform"})),
}
"""Formats that are decoded only where one of these settings, in `thumbnails`, is on."""

_SIGNATURES = (
    (b"\xff\xd8\xff", PictureFormat.JPEG),
    (b"\x89PNG\r\n\x1a\n", PictureFormat.PNG),
    (b"GIF87a", PictureFormat.GIF),
    (b"GIF89a", PictureFormat.GIF),
    (b"BM", PictureFormat.BMP),
    (b"II*\x00", PictureFormat.TIFF),
    (b"MM\x00*", PictureFormat.TIFF),
    (b"\x1aE\xdf\xa3", PictureFormat.MATROSKA),
    (b"OggS\x00", PictureFormat.OGG),
    (jpeg_xl_header.FILE_START, PictureFormat.JPEG_XL),
    (jpeg_xl_header.CODESTREAM_START, PictureFormat.JPEG_XL),
    (b"ID3", PictureFormat.MP3),
    (b"fLaC", PictureFormat.FLAC),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", PictureFormat.JPEG_2000),
    (b"\xff\x4f\xff\x51", PictureFormat.JPEG_2000),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_FILM_BRANDS = {b"avc1", b"qt  ", b"M4V ", b"M4VH", b"M4VP", b"MSNV", b"f4v ", b"dash", b"hvc1", b"av01"}
_FIRST_BOXES_OF_QUICKTIME = {b"moov", b"mdat", b"wide"}
_SVG_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?>(?><\?[^>]*>|<!--.*?-->)\s*+)*+(?:<(?:\w{1,30}:)?svg[\s>/]|<!DOCTYPE\s+svg\b)",
    re.DOTALL,
)
_RIFF_FORMS = {b"WEBP": PictureFormat.WEBP, b"WAVE": PictureFormat.WAV}
_MP3_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]")
_FILM_FAMILIES = {b"iso", b"mp4", b"3gp", b"3g2"}


def sniff(head: bytes) -> PictureFormat | None:
    """Return the format by magic bytes; None when it is not supported."""
    for signature, picture_format in _SIGNATURES:
        if head.startswith(signature):
            return picture_format
    if head[:4] == b"RIFF":
        return _RIFF_FORMS.get(head[8:12])
    if _MP3_FRAME.match(head):
        return PictureFormat.MP3
    if head[4:8] == b"ftyp":
        return _by_brands(head)
    if head[4:8] in _FIRST_BOXES_OF_QUICKTIME:
        return PictureFormat.MP4
    return PictureFormat.SVG if _is_svg(head) else None


def _is_svg(head: bytes) -> bool:
    """Return whether the first element of a document is SVG's, in any encoding that begins like ASCII or is UTF-16."""
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        head = head.replace(b"\x00", b"")[2:]
    return _SVG_START.match(head) is not None


def _by_brands(head: bytes) -> PictureFormat | None:
    """Tell AVIF, HEIC and films apart by the brands of an ISO file (ISO/IEC 14496-12, file type box)."""
    box_bytes = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]} | {head[start : start + 4] for start in range(16, box_bytes - 3, 4)}
    if brands & _AVIF_BRANDS:
        return PictureFormat.AVIF
    if brands & _HEIC_BRANDS:
        return PictureFormat.HEIC
    if brands & _FILM_BRANDS or {brand[:3] for brand in brands} & _FILM_FAMILIES:
        return PictureFormat.MP4
    return None


_LOSSY_START = b"\x9d\x01\x2a"
_SIDE_BITS = 0x3FFF


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return the canvas's width and height; None without an image header."""
    kind, content = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
    if kind == b"VP8L" and content[:1] == b"\x2f":
        bits = int.from_bytes(content[1:5], "little")
        return 1 + (bits & _SIDE_BITS), 1 + (bits >> 14 & _SIDE_BITS)
    if kind == b"VP8 " and content[3:6] == _LOSSY_START:
        width, height = int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")
        return width & _SIDE_BITS, height & _SIDE_BITS
    return None
