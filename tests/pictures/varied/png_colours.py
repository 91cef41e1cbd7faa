"""PNG files that say in every way how their colours are meant, and which way up they are."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image, ImageCms

from tests.pictures.varied.pngs import ANCILLARY, Chunk, bad_crc, head, key_of, packed, palette, png, rows, written


def colours() -> Iterator[tuple[str, bytes]]:
    """What says how colours are meant, alone and together."""
    wide, grey = _profile(wide=True), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    said: dict[str, Chunk] = {
        "gAMA 1.0": (b"gAMA", struct.pack(">I", 100_000)),
        "gAMA 2.2": (b"gAMA", struct.pack(">I", 45_455)),
        "gAMA 1.8": (b"gAMA", struct.pack(">I", 55_556)),
        "gAMA 0": (b"gAMA", bytes(4)),
        "gAMA huge": (b"gAMA", b"\xff" * 4),
        "gAMA tiny": (b"gAMA", struct.pack(">I", 1)),
        "cHRM P3": (b"cHRM", ANCILLARY[b"cHRM"]),
        "cHRM 0": (b"cHRM", bytes(32)),
        "cHRM huge": (b"cHRM", b"\x7f" * 32),
        "cHRM on a line": (b"cHRM", struct.pack(">8I", *[30000] * 8)),
        "sRGB": (b"sRGB", b"\x00"),
        "sRGB 9": (b"sRGB", b"\x09"),
        "iCCP P3": (b"iCCP", b"x\x00\x00" + zlib.compress(wide)),
        "iCCP sRGB": (b"iCCP", b"x\x00\x00" + zlib.compress(grey)),
        "iCCP broken": (b"iCCP", b"x\x00\x00garbage"),
        "iCCP no profile": (b"iCCP", b"x\x00\x00" + zlib.compress(bytes(300))),
        "iCCP padded": (b"iCCP", b"x\x00\x00" + zlib.compress(wide + bytes(100))),
        "iCCP cut": (b"iCCP", b"x\x00\x00" + zlib.compress(wide)[:-10]),
        "iCCP nameless": (b"iCCP", b"\x00\x00" + zlib.compress(wide)),
    }
    for primaries, transfer, matrix, full in (
        (1, 13, 0, 1),
        (12, 13, 0, 1),
        (9, 16, 0, 1),
        (9, 18, 0, 1),
        (1, 8, 0, 1),
        (1, 4, 0, 1),
        (1, 5, 0, 1),
        (9, 14, 0, 1),
        (5, 6, 0, 1),
        (2, 2, 0, 1),
        (0, 0, 0, 1),
        (12, 13, 1, 1),
        (12, 13, 0, 0),
        (255, 255, 0, 1),
        (11, 17, 0, 1),
        (4, 4, 0, 1),
        (9, 1, 0, 1),
        (1, 16, 0, 1),
        (8, 13, 0, 1),
        (10, 8, 0, 1),
        (22, 13, 0, 1),
        (1, 9, 0, 1),
        (1, 7, 0, 1),
        (1, 11, 0, 1),
        (12, 16, 0, 1),
    ):
        said[f"cICP {primaries} {transfer} {matrix} {full}"] = (b"cICP", bytes((primaries, transfer, matrix, full)))
    for name, chunk in said.items():
        yield f"colours {name}", png(2, 8, chunk)
    for names in (
        ("gAMA 1.0", "cHRM P3"),
        ("gAMA 2.2", "cHRM P3"),
        ("gAMA 1.0", "cHRM 0"),
        ("gAMA 1.0", "sRGB"),
        ("gAMA 1.0", "iCCP P3"),
        ("iCCP P3", "sRGB"),
        ("iCCP broken", "gAMA 1.0"),
        ("cICP 12 13 0 1", "gAMA 1.0"),
        ("cICP 1 13 0 1", "iCCP P3"),
        ("cICP 12 13 1 1", "gAMA 1.0"),
        ("cICP 255 255 0 1", "gAMA 1.0"),
        ("iCCP no profile", "gAMA 1.0"),
        ("gAMA 2.2", "cHRM on a line"),
        ("cHRM P3", "sRGB"),
        ("gAMA 0", "cHRM P3"),
        ("cICP 2 2 0 1", "iCCP P3"),
    ):
        yield f"colours {' and '.join(names)}", png(2, 8, *[said[name] for name in names])
    for colour_type, depth in ((0, 8), (3, 8), (4, 8), (6, 8), (0, 16), (2, 16), (0, 2)):
        for name in ("gAMA 1.0", "iCCP P3", "cICP 12 13 0 1", "cICP 9 16 0 1"):
            yield f"colours type {colour_type} depth {depth} {name}", png(colour_type, depth, said[name])
    for name in ("gAMA 1.0", "iCCP P3", "cICP 12 13 0 1", "sRGB"):
        picture = (b"IDAT", zlib.compress(rows(3, 8)))
        yield f"colours before the palette {name}", written(head(3, 8), said[name], palette(), picture, (b"IEND", b""))
    yield "colours behind the picture", png(2, 8, after=(said["gAMA 1.0"],))
    yield "colours gAMA bad crc", png(2, 8, bad_crc(*said["gAMA 1.0"]))
    yield "colours key gAMA 1.0", png(2, 8, (b"tRNS", packed(key_of(2, 8))), said["gAMA 1.0"])


def _profile(*, wide: bool) -> bytes:
    """Make a profile whose primaries have changed places, which nobody overlooks."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if wide:
        red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
        profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def orientations() -> Iterator[tuple[str, bytes]]:
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        block = exif.tobytes()[6:]
        yield f"png turned {orientation}", png(2, 8, (b"eXIf", block))
        if orientation in {3, 6}:
            yield f"png turned {orientation} behind the picture", png(2, 8, after=((b"eXIf", block),))
            yield f"png turned {orientation} bad crc", png(2, 8, bad_crc(b"eXIf", block))
            yield f"png turned {orientation} with Exif in front", png(2, 8, (b"eXIf", b"Exif\x00\x00" + block))
            yield f"png turned {orientation} key", png(2, 8, (b"eXIf", block), (b"tRNS", packed(key_of(2, 8))))
    xmp = b"XML:com.adobe.xmp\x00\x00\x00\x00\x00<x:xmpmeta xmlns:tiff='x' tiff:Orientation='6'/>"
    yield "png turned by xmp", png(2, 8, (b"iTXt", xmp))


def cases() -> Iterator[tuple[str, bytes]]:
    yield from colours()
    yield from orientations()
