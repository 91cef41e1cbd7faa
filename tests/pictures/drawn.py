"""Pictures drawn for the tests: colours in the corners tell which way up they are."""

import io
import struct
import zlib
from functools import cache
from typing import Any

from PIL import Image

RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250)


def corners(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Draw a picture: red top left, green top right, blue bottom left, white bottom right."""
    picture = Image.new("RGB", (width, height))
    half = (width // 2, height // 2)
    for colour, at in ((RED, (0, 0)), (GREEN, (half[0], 0)), (BLUE, (0, half[1])), (WHITE, half)):
        picture.paste(colour, (*at, width, height))
    return picture.convert(mode)


def encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, name, **options)
    return out.getvalue()


def jpeg(width: int, height: int, **options: Any) -> bytes:
    return encoded(corners(width, height), "JPEG", quality=90, **options)


def oriented(width: int, height: int, orientation: int) -> bytes:
    """Encode a JPEG that is stored turned, so that it is upright once its orientation is applied."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = corners(width, height)
    if orientation in undo:
        picture = picture.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "ExamplePhone"
    return encoded(picture, "JPEG", quality=90, exif=exif)


def animated(name: str, width: int, height: int, frames: int) -> bytes:
    pictures = [Image.new("RGB", (width, height), (index * 255 // frames, 80, 80)) for index in range(frames)]
    return encoded(
        pictures[0],
        name,
        save_all=True,
        append_images=pictures[1:],
        duration=[40 + 10 * n for n in range(frames)],
        loop=0,
    )


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, *, rows: int = 10, extra: bytes = b"") -> bytes:
    """Encode a PNG header of any size with hardly any picture behind it."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(rows * (width // 8 + 1)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    )


def scan_bomb(scans: int = 500) -> bytes:
    """Encode a progressive JPEG whose last scan comes again and again."""
    data = encoded(corners(256, 256), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


@cache
def hostile() -> dict[str, bytes]:
    """Make small files that are meant to do harm."""
    whole = jpeg(600, 400)
    png = encoded(corners(64, 64), "PNG")
    gif = encoded(corners(64, 64).quantize(), "GIF")
    return {
        "empty": b"",
        "magic_only.png": b"\x89PNG\r\n\x1a\n",
        "huge_header.png": png_claiming(60_000, 60_000),
        "one_bit_900_megapixels.png": png_claiming(30_000, 30_000, rows=30_000),
        "text_bomb.png": png_claiming(8, 8, extra=png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 9))),
        "huge_canvas.gif": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "scan_bomb.jpg": scan_bomb(),
        "truncated.jpg": whole[: len(whole) // 2],
        "truncated.png": png[: len(png) // 2],
        "flipped.jpg": bytes(byte ^ 0x55 if 200 < n < 260 else byte for n, byte in enumerate(whole)),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n%%EOF\n",
        "html.png": b"<html><script>alert(1)</script></html>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "orientation_99.jpg": encoded(corners(64, 64), "JPEG", exif=_orientation(99)),
        "png_and_html.png": png + b"<html><script>alert(1)</script></html>",
        "frames_that_are_not.png": png[:33] + png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + png[33:],
        "tiff_60000": b"II*\0\x08\0\0\0\x04\0"
        + struct.pack("<HHII", 256, 4, 1, 60_000)
        + struct.pack("<HHII", 257, 4, 1, 60_000)
        + struct.pack("<HHII", 273, 4, 1, 8)
        + struct.pack("<HHII", 279, 4, 1, 4)
        + bytes(4),
    }


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif
