"""JPEG, WebP, AVIF and BMP files: modes, profiles, orientations, animations, and what is broken in them."""

import random
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageCms

from tests.pictures.drawn import corners, encoded
from tests.pictures.varied.moving_pngs import COLOURS

WIDTH, HEIGHT = 96, 72
CUTS = (99, 95, 90, 75, 50, 25)


def grainy(mode: str = "RGB") -> Image.Image:
    """Draw corners that hardly pack, so that a cut file lacks as much of its picture."""
    noise = Image.frombytes("L", (WIDTH, HEIGHT), random.Random(7).randbytes(WIDTH * HEIGHT))
    picture = Image.blend(corners(WIDTH, HEIGHT), Image.merge("RGB", [noise] * 3), 0.1)
    return (
        picture.quantize(64, dither=Image.Dither.NONE)
        if mode == "P"
        else picture.convert(mode, dither=Image.Dither.NONE)
    )


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _swapped() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


PROFILES = {
    "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "swapped": _swapped(),
    "broken": b"nonsense" * 40,
    "cut": _swapped()[:300],
    "Lab": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
}
NAME, BIG = b"Exif\x00\x00", b"MM\x00*\x00\x00\x00\x08"
ENTRY, NO_NEXT = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00", bytes(4)
BLOCKS: dict[str, bytes] = {
    "empty": NAME,
    "nonsense": NAME + b"\xff" * 50,
    "a string": NAME + BIG + b"\x00\x01\x01\x12\x00\x02\x00\x00\x00\x01\x36\x00\x00\x00" + NO_NEXT,
    "a long": NAME + BIG + b"\x00\x01\x01\x12\x00\x04\x00\x00\x00\x01\x00\x00\x00\x06" + NO_NEXT,
    "a byte": NAME + BIG + b"\x00\x01\x01\x12\x00\x01\x00\x00\x00\x01\x06\x00\x00\x00" + NO_NEXT,
    "two values": NAME + BIG + b"\x00\x01\x01\x12\x00\x03\x00\x00\x00\x02\x00\x06\x00\x03" + NO_NEXT,
    "no next": NAME + BIG + b"\x00\x01" + ENTRY,
    "little": NAME + b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00" + NO_NEXT,
    "a loop": NAME + BIG + b"\x00\x01" + ENTRY + b"\x00\x00\x00\x08",
    "wrong magic": NAME + b"MM\x00+\x00\x00\x00\x08\x00\x01" + ENTRY + NO_NEXT,
    "many entries": NAME + BIG + b"\xff\xff" + ENTRY + NO_NEXT,
    "directory far off": NAME + b"MM\x00*\x00\x00\x00\x20" + bytes(24) + b"\x00\x01" + ENTRY + NO_NEXT,
}


def cut(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    for percent in CUTS:
        yield f"{name} cut at {percent}", data[: len(data) * percent // 100]
    yield f"{name} last byte cut", data[:-1]
    yield f"{name} trailer", data + b"PK\x03\x04" * 700


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def jpegs() -> Iterator[tuple[str, bytes]]:
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            name = f"jpeg {mode}{' progressive' if progressive else ''}"
            data = encoded(grainy(mode), "JPEG", quality=90, progressive=progressive)
            yield name, data
            yield from cut(name, data)
    for sampling in (0, 1, 2):
        yield f"jpeg sampling {sampling}", encoded(grainy(), "JPEG", quality=90, subsampling=sampling)
    yield "jpeg rgb kept", encoded(grainy(), "JPEG", quality=90, keep_rgb=True)
    yield "jpeg restarts", encoded(grainy(), "JPEG", quality=90, restart_marker_rows=1)
    yield "jpeg arithmetic header", jpeg().replace(b"\xff\xc0", b"\xff\xc9", 1)
    for mode in ("L", "RGB", "CMYK"):
        for name, profile in PROFILES.items():
            yield f"jpeg {mode} profile {name}", encoded(grainy(mode), "JPEG", quality=90, icc_profile=profile)
    for orientation in range(10):
        yield f"jpeg turned {orientation}", encoded(grainy(), "JPEG", quality=90, exif=_exif(orientation))
    for name, block in BLOCKS.items():
        yield f"jpeg exif {name}", jpeg(segment(0xE1, block))
    yield "jpeg exif twice", jpeg(segment(0xE1, _exif(6)), segment(0xE1, _exif(3)))
    yield "jpeg exif without a name", jpeg(segment(0xE1, _exif(6)[6:]))
    yield from odd_jpegs()


def jpeg(*segments: bytes) -> bytes:
    data = encoded(grainy(), "JPEG", quality=90)
    return data[:2] + b"".join(segments) + data[2:]


def odd_jpegs() -> Iterator[tuple[str, bytes]]:
    data = jpeg()
    yield "jpeg ends twice", data + b"\xff\xd9"
    yield "jpeg of two", data + encoded(grainy("L"), "JPEG")
    yield "jpeg fill bytes", data[:2] + b"\xff\xff\xff" + data[2:]
    yield "jpeg junk between", data[:2] + b"\x00\x01\x02" + data[2:]
    yield "jpeg long comment", jpeg(segment(0xFE, b"x" * 65000), segment(0xFE, b"x" * 65000))
    yield "jpeg short segment", jpeg(b"\xff\xee\x00\x02")
    yield "jpeg wrong length", jpeg(b"\xff\xee\x00\x00")
    yield "jpeg app beyond the end", jpeg(b"\xff\xed\xff\xff")
    scan = data.index(b"\xff\xda")
    yield "jpeg without tables", data[: data.index(b"\xff\xc4")] + data[scan:]
    yield "jpeg marker in its data", data[: scan + 400] + b"\xff\xd3" + data[scan + 400 :]
    yield "jpeg flipped", bytes(byte ^ 0x55 if scan + 300 < at < scan + 320 else byte for at, byte in enumerate(data))
    yield "jpeg zeros", data[: scan + 500] + bytes(len(data) - scan - 500)
    height = data.index(b"\xff\xc0") + 5
    yield "jpeg taller than its data", data[:height] + struct.pack(">H", 100) + data[height + 2 :]
    yield "jpeg of no height", data[:height] + bytes(2) + data[height + 2 :]
    yield "jpeg motion photograph", data + b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda\x00\x04ab" * 1000
    for transform in (0, 1, 2):
        adobe = segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00" + bytes((transform,)))
        yield f"jpeg adobe transform {transform}", data[:2] + adobe + data[20:]
    cmyk = bytearray(encoded(grainy("CMYK"), "JPEG", quality=90))
    at = cmyk.index(b"Adobe") + 11
    cmyk[at] = 2
    yield "jpeg ycck", bytes(cmyk)
    yield "jpeg cmyk without adobe", bytes(cmyk[: at - 15] + cmyk[at + 1 :])
    xmp = (
        b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/>"
    )
    yield "jpeg turned by xmp", jpeg(segment(0xE1, xmp))
    yield (
        "jpeg jfif thumbnail",
        data[:2] + segment(0xE0, b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x02\x02" + bytes(12)) + data[20:],
    )
    whole = PROFILES["swapped"]
    parts = [
        segment(0xE2, b"ICC_PROFILE\x00" + bytes((n + 1, 3)) + whole[n * 200 : 200 * (n + 1) if n < 2 else None])
        for n in range(3)
    ]
    yield "jpeg profile in parts", jpeg(*parts)
    yield "jpeg profile in parts out of order", jpeg(*parts[::-1])
    yield "jpeg profile lacks a part", jpeg(*parts[:2])
    yield "jpeg profile part twice", jpeg(parts[0], *parts)


def _frames(mode: str = "RGBA") -> list[Image.Image]:
    found = []
    for at, colour in enumerate(COLOURS):
        one = Image.new("RGBA", (WIDTH, HEIGHT), COLOURS[0])
        one.paste(colour, (24 * at, 18 * at, 48 + 24 * at, 36 + 18 * at))
        found.append(one.convert(mode))
    return found


def webps() -> Iterator[tuple[str, bytes]]:
    for options in ({"quality": 85}, {"lossless": True}):
        way = "lossless" if "lossless" in options else "lossy"
        for mode in ("RGB", "RGBA"):
            picture = grainy(mode)
            if mode == "RGBA":
                picture.putalpha(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
            data = encoded(picture, "WEBP", **options)
            yield f"webp {way} {mode}", data
            yield from cut(f"webp {way} {mode}", data)
        for name, profile in PROFILES.items():
            yield f"webp {way} profile {name}", encoded(grainy(), "WEBP", icc_profile=profile, **options)
    for orientation in range(1, 9):
        yield f"webp turned {orientation}", encoded(grainy(), "WEBP", exif=_exif(orientation), quality=85)
    plain = _exif(6)[6:]
    yield "webp turned 6 without a name", encoded(grainy(), "WEBP", exif=plain, quality=85)
    yield "webp exif nonsense", encoded(grainy(), "WEBP", exif=b"Exif\x00\x00" + b"\xff" * 50, quality=85)
    yield "webp turned by xmp", encoded(grainy(), "WEBP", xmp=b"<x tiff:Orientation='6'/>", quality=85)
    yield from _moving("webp", "WEBP", lossless=True)
    moving = _animation("WEBP", lossless=True)
    yield "webp animation turned", _animation("WEBP", lossless=True, exif=_exif(6))
    yield "webp animation profile", _animation("WEBP", lossless=True, icc_profile=PROFILES["swapped"])
    yield "webp background", _animation("WEBP", lossless=True, background=(0, 255, 0, 255))
    for flags in range(4):
        yield f"webp frame flags {flags}", _with_flags(moving, flags)


def _with_flags(data: bytes, flags: int) -> bytes:
    """Set how every frame of a WebP is blended (2: not) and disposed of (1: to the background)."""
    found = bytearray(data)
    at = 12
    while at + 8 <= len(found):
        if found[at : at + 4] == b"ANMF":
            found[at + 8 + 15] = flags
        size = int.from_bytes(found[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return bytes(found)


def _animation(name: str, **options: Any) -> bytes:
    frames = _frames()
    given: dict[str, Any] = {"duration": [200, 300, 400, 500], "loop": 0, **options}
    return encoded(frames[0], name, save_all=True, append_images=frames[1:], **given)


def _moving(name: str, pillows: str, **options: Any) -> Iterator[tuple[str, bytes]]:
    data = _animation(pillows, **options)
    yield f"{name} animation", data
    yield from cut(f"{name} animation", data)
    for duration in (0, 1, 10, 11, 20, 1000):
        yield f"{name} duration {duration}", _animation(pillows, duration=duration, **options)
    for plays in (1, 2, 5):
        yield f"{name} loop {plays}", _animation(pillows, loop=plays, **options)
    frame = _frames()[0]
    yield f"{name} of one frame", encoded(frame, pillows, save_all=True, append_images=[], duration=100, **options)


def of_many_brands(data: bytes) -> bytes:
    """Name the brand that counts behind many others."""
    brands = b"mif1" * 40 + b"avif"
    head = struct.pack(">I", 16 + len(brands)) + b"ftypmif1" + bytes(4) + brands
    return moved(head + data[int.from_bytes(data[:4], "big") :], len(head) - int.from_bytes(data[:4], "big"))


def with_colours_of_no_item(data: bytes, primaries: int, transfer: int) -> bytes:
    """Put a property in front of the others that belongs to no item."""
    decoy = b"\x00\x00\x00\x13colrnclx" + struct.pack(">3H", primaries, transfer, 6) + b"\x80"
    found = bytearray(data)
    for name in (b"meta", b"iprp", b"ipco"):
        at = found.index(name) - 4
        found[at : at + 4] = struct.pack(">I", int.from_bytes(found[at : at + 4], "big") + len(decoy))
    associated = found.index(b"ipma") + 15
    for at in range(associated, associated + found[associated - 1]):
        found[at] += 1
    start = found.index(b"ipco") + 4
    found[start:start] = decoy
    return moved(bytes(found), len(decoy))


def moved(data: bytes, by: int) -> bytes:
    """Tell where the picture's data is, after so many more bytes in front of it."""
    at = data.index(b"iloc") + 18
    return data[:at] + struct.pack(">I", int.from_bytes(data[at : at + 4], "big") + by) + data[at + 4 :]


def avifs() -> Iterator[tuple[str, bytes]]:
    for sampling in ("4:4:4", "4:2:0", "4:2:2", "4:0:0"):
        yield f"avif {sampling}", encoded(grainy(), "AVIF", quality=90, subsampling=sampling, speed=9)
    alpha = grainy("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
    for mode, picture in (("RGB", grainy()), ("RGBA", alpha)):
        data = encoded(picture, "AVIF", quality=85, speed=9)
        yield f"avif {mode}", data
        yield from cut(f"avif {mode}", data)
    yield "avif narrow range", encoded(grainy(), "AVIF", quality=90, range="limited", speed=9)
    for name, profile in PROFILES.items():
        yield f"avif profile {name}", encoded(grainy(), "AVIF", quality=90, icc_profile=profile, speed=9)
    for orientation in range(1, 9):
        yield f"avif turned {orientation}", encoded(grainy(), "AVIF", quality=90, exif=_exif(orientation), speed=9)
    plain = encoded(grainy(), "AVIF", quality=90, speed=9)
    at = plain.index(b"nclx") + 4
    for primaries, transfer in (
        (12, 13),
        (9, 16),
        (9, 18),
        (1, 1),
        (9, 14),
        (1, 8),
        (1, 4),
        (5, 5),
        (6, 6),
        (2, 2),
        (9, 13),
        (11, 17),
        (12, 16),
        (255, 255),
        (1, 11),
        (1, 15),
        (1, 7),
        (22, 13),
        (12, 8),
        (9, 1),
        (12, 1),
        (7, 7),
    ):
        told = plain[:at] + struct.pack(">HH", primaries, transfer) + plain[at + 4 :]
        yield f"avif nclx {primaries} {transfer}", told
    turned = encoded(grainy(), "AVIF", quality=90, exif=_exif(6), speed=9)
    angle = turned.index(b"irot") + 4
    yield "avif exif that turns more than irot", turned[:angle] + b"\x00" + turned[angle + 1 :]
    yield "avif of many brands", of_many_brands(plain)
    for primaries, transfer in ((9, 16), (1, 8)):
        yield f"avif colours of no item {primaries} {transfer}", with_colours_of_no_item(plain, primaries, transfer)
    yield from _moving("avif", "AVIF", speed=9)


def bmps() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        data = encoded(grainy(mode), "BMP")
        yield f"bmp {mode}", data
        if mode in {"RGB", "P"}:
            yield from cut(f"bmp {mode}", data)
    data = encoded(grainy(), "BMP")
    flipped = struct.pack("<i", -HEIGHT)
    yield "bmp from the top", data[:22] + flipped + data[26:]
    yield "bmp wrong size in its header", data[:2] + struct.pack("<I", 7) + data[6:]
    yield "bmp no size in its header", data[:2] + bytes(4) + data[6:]
    yield "bmp unknown compression", data[:30] + struct.pack("<I", 99) + data[34:]
    alpha = grainy("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
    yield "bmp alpha", encoded(alpha, "BMP")
    yield "bmp rle", _rle()


def _rle() -> bytes:
    """Write a BMP whose rows are runs of one colour each."""
    rows = b"".join(bytes((WIDTH, y // 18)) + b"\x00\x00" for y in range(HEIGHT)) + b"\x00\x01"
    colours = b"".join(bytes((*colour[2::-1], 0)) for colour in COLOURS)
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(rows), 0, 0, 4, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 16 + len(rows), 0, 0, 70) + head + colours + rows


def cases() -> Iterator[tuple[str, bytes]]:
    for group in (jpegs, webps, avifs, bmps):
        yield from group()
